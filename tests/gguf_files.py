"""Small GGUF files, written as llama.cpp's converter writes them, and the models that they hold."""

from pathlib import Path
from typing import Any

import gguf
import torch

from app.engine.model import HostedModel
from tests.models import EOS, tiny

TRANSPOSED = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")


def write_gguf(
    path: Path,
    kind: str = "llama",
    *,
    seed: int = 0,
    hosted: HostedModel | None = None,
    leave_out: str = "",
    add: dict[str, torch.Tensor] | None = None,
    fields: dict[str, Any] | None = None,
) -> HostedModel:
    """Writes a tiny random model of an architecture, or the one that is given, and returns it."""
    hosted = hosted or tiny(kind, seed)
    config = hosted.model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name(f"tiny {kind}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(width)
        writer.add_key_length(width)
        writer.add_value_length(width)
    _add_tokenizer(writer, hosted.tokenizer)
    for name, value in (fields or {}).items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for name, tensor in (*_tensors(hosted, kind), *(add or {}).items()):
        if not leave_out or leave_out not in name:
            writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hosted


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    end = tokens.index(EOS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == EOS else 1 for token in tokens])
    writer.add_token_scores([0.0] * len(tokens))  # in place of merges: there are none, and an empty array has no type
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)


def _tensors(hosted: HostedModel, kind: str) -> list[tuple[str, torch.Tensor]]:
    config = hosted.model.config
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found = []
    weights = {tensor.data_ptr(): (name, tensor) for name, tensor in reversed(hosted.model.state_dict().items())}
    for name, tensor in reversed(weights.values()):  # once for a head that shares its weight with the embeddings
        stem, _, ending = name.rpartition(".")
        packed = f"{names.get_name(stem)}.{ending}"
        if kind == "gpt2" and packed.endswith(TRANSPOSED):
            tensor = tensor.T
        if kind == "llama" and "attn_q." in packed:
            tensor = _interleaved(tensor, config.num_attention_heads)
        if kind == "llama" and "attn_k." in packed:
            tensor = _interleaved(tensor, config.num_key_value_heads)
        found.append((packed, tensor))
    return found


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rotary halves side by side, as llama.cpp rotates them."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )
