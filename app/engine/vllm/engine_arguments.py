"""The arguments with which vLLM serves the model that this server hosts."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from app.domain.errors import InvalidRequest
from app.editors.base import FixedAdapters, Site
from app.engine.model import HostedModel
from app.engine.vllm.inside.errata_vllm.rows import DRAFTERS, LOOKAHEAD

OURS = frozenset(
    {
        "model", "revision", "dtype", "max_model_len", "max_num_seqs", "kv_cache_memory_bytes", "additional_config",
        "load_format", "worker_extension_cls", "async_scheduling", "seed", "max_logprobs", "lora_target_modules",
        "structured_outputs_config",
    }
)  # fmt: skip
"""The arguments that Errata decides."""
LORA_RANKS = (8, 16, 32, 64, 128, 256)
"""The ranks that vLLM makes room for."""
SPECULATION = "speculative_config"


def vllm_arguments(
    hosted: HostedModel,
    site: Site,
    slots: int,
    room_tokens: int,
    model_revision: str | None,
    adapters: FixedAdapters,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of vLLM's AsyncEngineArgs. `room_tokens`: how many tokens of keys and values it may hold.
    `adapters`: the LoRAs that edits may be, for which vLLM makes room if `more` has `enable_lora`.

    Raises InvalidRequest if `more` holds one that Errata decides itself or under which edits are not served.
    """
    if taken := sorted(OURS & more.keys()):
        raise InvalidRequest(f"ERRATA_VLLM_ARGUMENTS: {taken[0]} is decided by Errata from its own settings.")
    if speculates(more):
        _check_drafter(more[SPECULATION])
    return {
        "model": hosted.model.name_or_path,
        "revision": model_revision,
        "dtype": str(hosted.dtype).removeprefix("torch."),
        "max_model_len": hosted.max_tokens,
        "max_num_seqs": slots,
        "kv_cache_memory_bytes": room_tokens * _worker_kv_bytes(hosted, more),
        "additional_config": {"errata": {"site": site.module}},
        "seed": 0,
        "max_logprobs": 20,
        **(_room_for(adapters, slots) if more.get("enable_lora") else {}),
        **more,
    }


def speculates(more: Mapping[str, Any]) -> bool:
    """True if vLLM drafts tokens under these arguments."""
    return more.get(SPECULATION) is not None


def _check_drafter(speculation: Any) -> None:
    """Raises InvalidRequest for a drafter beside which edits are not served: a model that drafts would be taken for the
    one that is edited."""
    given = speculation if isinstance(speculation, Mapping) else {}
    if given.get("model" if given.get("method") == "custom_class" else "method") not in DRAFTERS:
        raise InvalidRequest(
            f"ERRATA_VLLM_ARGUMENTS: edits are served with a {SPECULATION} whose `method` is 'ngram', or "
            f"'custom_class' with the `model` {LOOKAHEAD!r}, and with no other. See /help/vllm#what-is-right."
        )


def _worker_kv_bytes(hosted: HostedModel, more: Mapping[str, Any]) -> int:
    """Bytes of keys and values per token in one worker, as vLLM counts memory by the worker: those of its heads, in the
    layers of its stage. Raises InvalidRequest for a number of workers that is none."""
    ranks, stages = (_workers(more, name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    heads, _ = hosted.kv_shape
    layers = ceil(hosted.model.config.num_hidden_layers / stages)
    return hosted.kv_bytes_per_token(layers) // heads * ceil(heads / ranks)


def _workers(more: Mapping[str, Any], name: str) -> int:
    count = more.get(name, 1)
    if not isinstance(count, int) or count < 1:
        raise InvalidRequest(f"ERRATA_VLLM_ARGUMENTS: {name} is {count!r}: give a number from 1 on.")
    return count


def _room_for(adapters: FixedAdapters, slots: int) -> dict[str, Any]:
    """The arguments under which each request of a step may have a LoRA of its own."""
    return {
        "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= adapters.rank),
        "max_loras": slots,
        "lora_target_modules": list(adapters.modules),
    }
