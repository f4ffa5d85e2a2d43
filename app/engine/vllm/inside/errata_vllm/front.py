"""The only module that reads names of vLLM's in the process in front of its workers: the engine, and what it takes and
gives for a request. They are imported, or checked at the start by their entries in `names`."""

from collections.abc import Mapping
from typing import Any

from vllm import SamplingParams
from vllm.config import StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.logprobs import Logprob
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from .inner import LOAD_FORMAT
from .names import ENGINE_NAMES, LOGPROB_NAMES, OUTPUT_NAMES, OUTPUTS_NAMES, check_instances, check_names
from .rows import ADAPTER_PATH


def start_engine(arguments: Mapping[str, Any]) -> Any:
    """Return an engine with these arguments of AsyncEngineArgs and Errata's own. Raises VllmRefusal, before it loads
    the model, if it lacks a name that is read while requests run."""
    check_names(AsyncLLM, ENGINE_NAMES, "its engine")
    check_instances(RequestOutput, OUTPUTS_NAMES, "its answer")
    check_instances(CompletionOutput, OUTPUT_NAMES, "its answer")
    check_instances(Logprob, LOGPROB_NAMES, "its answer")
    ours = {
        "structured_outputs_config": StructuredOutputsConfig(backend="guidance"),  # as in the server
        "load_format": LOAD_FORMAT,
        "worker_extension_cls": "errata_vllm.extension.EditRows",
        "async_scheduling": False,
    }
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**{**arguments, **ours}))


def sampling_of(given: dict[str, Any]) -> tuple[Any, Any]:
    """Return the sampling parameters of a request as the server sends them, which this uses up, and the LoRA that it
    names, or None."""
    given["logit_bias"] = dict(given.pop("logit_bias", ())) or None
    if (adapter := given.pop("adapter", None)) is not None:
        adapter = LoRARequest(*adapter, ADAPTER_PATH)
    if (constraint := given.get("structured_outputs")) is not None:
        given["structured_outputs"] = StructuredOutputsParams(**constraint)
    return SamplingParams(**given, detokenize=False, output_kind=RequestOutputKind.DELTA), adapter


def tokens_of(output: CompletionOutput) -> list[list[Any]]:
    """Return [token id, log probability, rank, [[id, log probability] of the likeliest]] for each new token, or
    [token id, None, 0, []] where no log probabilities were asked for."""
    if output.logprobs is None:
        return [[token_id, None, 0, []] for token_id in output.token_ids]
    tokens = []
    for token_id, ranked in zip(output.token_ids, output.logprobs, strict=True):
        chosen = ranked[token_id]
        others = sorted(ranked.items(), key=lambda each: each[1].rank)
        tokens.append([token_id, chosen.logprob, chosen.rank, [[each, it.logprob] for each, it in others]])
    return tokens
