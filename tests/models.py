"""Tiny random causal LMs and a byte-level tokenizer, built in memory.

Random models have flat logits, so their output head is scaled up: then greedy answers differ by prompt and an edit of
one token can be learned. What an edit does for meaning is tested on the model that ships.
"""

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from app.engine.model import HostedModel, host

EOS = "<|endoftext|>"
WIDTH, LAYERS, HEADS, MAX_TOKENS = 32, 4, 4, 256


def tokenizer() -> Any:
    """Bytes as tokens, end-of-text as id 0."""
    alphabet = [EOS, *sorted(ByteLevel.alphabet())]
    backend = Tokenizer(BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, bos_token=EOS, pad_token=EOS)


_COMMON = {"vocab_size": 257, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_ROPE = {
    **_COMMON,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": MAX_TOKENS,
}
_GROUPED = {**_ROPE, "num_key_value_heads": 2, "head_dim": 8}

TINY: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, _GROUPED),
    "mistral": (MistralConfig, MistralForCausalLM, {**_GROUPED, "sliding_window": MAX_TOKENS}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {**_ROPE, "num_key_value_heads": 2}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, _GROUPED),
    "gemma": (GemmaConfig, GemmaForCausalLM, _GROUPED),
    "phi": (PhiConfig, PhiForCausalLM, _ROPE),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, _ROPE),
    "gpt2": (
        GPT2Config,
        GPT2LMHeadModel,
        {**_COMMON, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": MAX_TOKENS},
    ),
    "opt": (
        OPTConfig,
        OPTForCausalLM,
        {
            **_COMMON,
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": MAX_TOKENS,
        },
    ),
}


def tiny(kind: str, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> HostedModel:
    """A hosted random model of an architecture; equal for equal seeds."""
    config, model_class, arguments = TINY[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class._from_config(config(**arguments), attn_implementation="sdpa")
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.15)
            elif "norm" not in name and "ln_" not in name:
                parameter.data.normal_(0, 0.02)
    model.to(device=device, dtype=dtype)
    return host(model, tokenizer(), name=f"tiny-{kind}", max_tokens=MAX_TOKENS)
