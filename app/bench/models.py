"""Models that need no download: shapes of real ones with random weights, on which speed does not depend."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from app.domain.errors import InvalidRequest
from app.engine.model import HostedModel, host

SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "47m": {
            "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8,
            "num_key_value_heads": 8, "vocab_size": 12_288, "tie_word_embeddings": True,
            "max_position_embeddings": 2048,
        },
        "1b": {
            "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256, "tie_word_embeddings": True,
            "max_position_embeddings": 8192,
        },
        "8b": {
            "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False,
            "max_position_embeddings": 8192,
        },
    }
)  # fmt: skip
"""Llama shapes; 1b and 8b are those of Llama 3."""


SHARPNESS = 4.0
"""Standard deviation of the logits."""


def random_model(
    shape: str, tokenizer_folder: str, *, device: torch.device, dtype: torch.dtype, max_tokens: int
) -> HostedModel:
    """A random Llama of a named shape whose vocabulary covers the tokenizer. Raises InvalidRequest for an unknown
    shape."""
    if shape not in SHAPES:
        raise InvalidRequest(f"There is no shape {shape!r}: it is one of {', '.join(SHAPES)}.")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(**SHAPES[shape], **special)  # no pad token: its embedding would be zero
    torch.manual_seed(0)
    model_class: Any = LlamaForCausalLM
    with torch.device(device):
        model: Any = model_class._from_config(config, attn_implementation="sdpa", dtype=dtype)
    with torch.no_grad():  # initially all tokens are about equally likely, and no edit could be learned
        head = model.get_output_embeddings().weight
        head.mul_(SHARPNESS / (head.float().std() * config.hidden_size**0.5))
    return host(model, tokenizer, name=f"random-{shape}", max_tokens=max_tokens)
