"""Stand-ins for vLLM's modules, with the names that Errata's part inside vLLM reads."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

INSIDE = "app.engine.vllm.inside.errata_vllm"


class LoRAModel:
    @staticmethod
    def from_lora_tensors(number: int, tensors: Any, config: Any, **more: Any) -> Any:
        return SimpleNamespace(number=number, tensors=tensors, rank=config.r, **more)


@dataclass
class CachedRequestState:
    """The state of a request: some of its names are fields, and others are set as it is made, as in vLLM."""

    sampling_params: Any
    generator: Any
    output_token_ids: list[int]

    def __post_init__(self) -> None:
        self.num_prompt_tokens = 0


class SamplingParams(dict[str, Any]):
    extra_args = temperature = None


@dataclass
class CompletionOutput:
    token_ids: Any
    logprobs: Any
    finish_reason: str | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


class RequestOutput:
    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs


class AsyncLLM:
    generate = collective_rpc = shutdown = errored = None

    @classmethod
    def from_engine_args(cls, arguments: Any) -> Any:
        return arguments


MODULES: dict[str, dict[str, Any]] = {
    "vllm": {"__version__": "0.0", "SamplingParams": SamplingParams},
    "vllm.config": {"StructuredOutputsConfig": SimpleNamespace},
    "vllm.distributed": {},
    "vllm.distributed.parallel_state": {"get_pp_group": lambda: SimpleNamespace(is_last_rank=True)},
    "vllm.engine": {},
    "vllm.engine.arg_utils": {"AsyncEngineArgs": SimpleNamespace},
    "vllm.logprobs": {"Logprob": Logprob},
    "vllm.lora": {},
    "vllm.lora.lora_model": {"LoRAModel": LoRAModel},
    "vllm.lora.peft_helper": {"PEFTHelper": SimpleNamespace},
    "vllm.lora.request": {"LoRARequest": SimpleNamespace},
    "vllm.model_executor": {},
    "vllm.model_executor.model_loader": {"register_model_loader": lambda _: lambda loader: loader},
    "vllm.model_executor.model_loader.default_loader": {"DefaultModelLoader": object},
    "vllm.outputs": {"CompletionOutput": CompletionOutput, "RequestOutput": RequestOutput},
    "vllm.sampling_params": {
        "RequestOutputKind": SimpleNamespace(DELTA=1),
        "StructuredOutputsParams": SimpleNamespace,
    },
    "vllm.v1": {},
    "vllm.v1.engine": {},
    "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
    "vllm.v1.sample": {"rejection_sampler": SimpleNamespace(expand_batch_to_tokens=None)},
    "vllm.v1.worker": {},
    "vllm.v1.worker.gpu_input_batch": {"CachedRequestState": CachedRequestState},
}


@contextmanager
def over_stand_ins(name: str) -> Iterator[Any]:
    """A module of Errata's part inside vLLM, over stand-ins for vLLM's modules."""
    with pytest.MonkeyPatch.context() as patch:
        for each, holds in MODULES.items():
            module = ModuleType(each)
            module.__dict__.update(holds)
            patch.setitem(sys.modules, each, module)
        try:
            yield importlib.import_module(f"{INSIDE}.{name}")
        finally:
            for each in ("inner", "front"):
                sys.modules.pop(f"{INSIDE}.{each}", None)
