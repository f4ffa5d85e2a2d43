"""The names inside vLLM that Errata reads, and the check at the start that a version has them.

Most of them are read only once requests run. A version that lacks one is refused by the name instead, before it answers
without the edits. What is imported from vLLM needs no check: the import fails at the start as well.
"""

import sys
from collections.abc import Sequence
from typing import Any

CONFIG_NAMES = (
    "additional_config",
    "model_config.dtype",
    "model_config.get_hidden_size",
    "model_config.max_model_len",
    "parallel_config.data_parallel_size",
    "parallel_config.enable_dbo",
    "parallel_config.prefill_context_parallel_size",
    "scheduler_config.async_scheduling",
    "scheduler_config.max_num_batched_tokens",
    "speculative_config",
    "use_v2_model_runner",
)
RUNNER_NAMES = (
    "device",
    "get_model",
    "_model_forward",
    "requests",
    "input_batch.req_ids",
    "input_batch.num_computed_tokens_cpu",
    "query_start_loc.np",
    "input_batch.generators",
    "input_batch.spec_token_ids",
    "discard_request_mask.np",
    "intermediate_tensors",
    "lora_config",
    "max_num_tokens",
    "model_config.dtype",
    "vllm_config.speculative_config",
    "vllm_config.structured_outputs_config.backend",
)
ADAPTER_NAMES = (
    "lora_config.lora_dtype",
    "lora_manager._load_adapter",
    "lora_manager.remove_adapter",
    "lora_manager._adapter_manager.modules",
)
LAYER_NAMES = ("lora_b_stacked",)
"""The name of each module that LoRAs act at."""
REQUEST_NAMES = ("generator", "num_prompt_tokens", "output_token_ids", "sampling_params")
"""The names of the model runner's state of a request."""
PARAMETER_NAMES = ("extra_args", "temperature")
OUTPUTS_NAMES = ("outputs",)
OUTPUT_NAMES = ("finish_reason", "logprobs", "token_ids")
LOGPROB_NAMES = ("logprob", "rank")
ENGINE_NAMES = ("collective_rpc", "errored", "generate", "shutdown")
SERVER_NAMES = ("args", "engine_client.collective_rpc")
"""The names of the state of the application that vLLM's own server runs."""


class VllmRefusal(Exception):
    """This vLLM, or the way it is set, cannot serve edits."""


def check_names(owner: Any, names: Sequence[str], place: str) -> None:
    """Raise VllmRefusal if an object lacks one of these names, which may be paths. `place` says what it is."""
    for path in names:
        holder = owner
        for name in path.split("."):
            if not hasattr(holder, name):
                raise _lacks(path, place, owner if isinstance(owner, type) else type(owner))
            holder = getattr(holder, name)


def check_instances(kind: type, names: Sequence[str], place: str) -> None:
    """Raise VllmRefusal if the objects of a class, none of which is there yet, will lack one of these names."""
    declared = {*dir(kind), *getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "__struct_fields__", ())}
    for maker in ("__init__", "__post_init__"):
        declared.update(getattr(getattr(getattr(kind, maker, None), "__code__", None), "co_names", ()))  # what it sets
    for name in names:
        if name not in declared:
            raise _lacks(name, place, kind)


def _lacks(path: str, place: str, kind: type) -> VllmRefusal:
    version = getattr(sys.modules.get("vllm"), "__version__", "")
    return VllmRefusal(
        f"vLLM {version} lacks {path} in {place} {kind.__name__}: edits cannot be served with it. Install a version "
        "that Errata is tested with."
    )
