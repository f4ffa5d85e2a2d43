"""The only module that knows names inside vLLM.

Each is checked at the start, so that a version that lacks one is refused by name, instead of answering without the
edits.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from vllm import __version__ as VERSION
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from .rows import StepSpan
from .site import install

LOAD_FORMAT = "errata"
CONFIG = "errata"
"""The key of Errata's part in vLLM's `additional_config`, which is part of the name of a compiled graph."""

RUNNER_NAMES = (
    "get_model",
    "_model_forward",
    "requests",
    "input_batch.req_ids",
    "input_batch.num_computed_tokens_cpu",
    "query_start_loc.np",
)


class VllmRefusal(Exception):
    """This vLLM, or the way it is set, cannot serve edits."""


def check_config(config: Any) -> None:
    """Raise VllmRefusal for a setting of vLLM under which the rows of an edit would be placed wrongly."""
    refusals = {
        "speculative decoding": config.speculative_config is not None,
        "async scheduling": bool(config.scheduler_config.async_scheduling),
        "the V2 model runner": bool(config.use_v2_model_runner),
        "dual batch overlap": bool(config.parallel_config.enable_dbo),
    }
    for name, refused in refusals.items():
        if refused:
            raise VllmRefusal(f"Edits cannot be served with {name} of vLLM {VERSION}: switch it off.")


def check_runner(runner: Any) -> None:
    """Raise VllmRefusal if the model runner lacks a name that `spans` or `before_forward` reads."""
    for path in RUNNER_NAMES:
        found = runner
        for name in path.split("."):
            if not hasattr(found, name):
                raise VllmRefusal(
                    f"vLLM {VERSION} lacks {path} in its model runner {type(runner).__name__}: edits cannot be "
                    "served with it. Install a version that Errata is tested with."
                )
            found = getattr(found, name)


def spans(runner: Any) -> Iterator[tuple[int, Mapping[str, Any] | None, StepSpan]]:
    """Yield for each request of the prepared step its first place in the flat batch, its extra arguments, its span."""
    batch, starts = runner.input_batch, runner.query_start_loc.np
    for at, request_id in enumerate(batch.req_ids):
        state = runner.requests[request_id]
        first = int(starts[at])
        parameters = state.sampling_params
        yield (
            first,
            None if parameters is None else parameters.extra_args,
            StepSpan(
                first=int(batch.num_computed_tokens_cpu[at]),
                count=int(starts[at + 1]) - first,
                prompt_tokens=int(state.num_prompt_tokens),
                generated=state.output_token_ids,
            ),
        )


def before_forward(runner: Any, prepare: Callable[[], None]) -> None:
    """Have `prepare` called before each forward pass of scheduled requests, after their inputs were laid out. It runs
    outside of compiled graphs."""
    forward = runner._model_forward

    def prepared(*args: Any, **kwargs: Any) -> Any:
        prepare()
        return forward(*args, **kwargs)

    runner._model_forward = prepared


@register_model_loader(LOAD_FORMAT)
class SiteLoader(DefaultModelLoader):
    """Loads a model as vLLM does by default, and attaches the edits' site before the model is compiled."""

    def __init__(self, load_config: Any) -> None:
        load_config.load_format = "auto"  # the default loader refuses a format that it does not know
        super().__init__(load_config)

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> nn.Module:
        check_config(vllm_config)
        model = super().load_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)
        given = vllm_config.additional_config[CONFIG]
        # A stage of a pipeline holds some layers only, and has other modules in the places of the rest.
        module = dict(model.named_modules()).get(given["site"])
        if module is None or type(module).__name__ == "PPMissingLayer":
            return model
        install(
            module,
            given["site"],
            rows=vllm_config.scheduler_config.max_num_batched_tokens,
            width=model_config.get_hidden_size(),
            dtype=model_config.dtype,
            device=next(model.parameters()).device,
        )
        return model


def model_facts(runner: Any) -> dict[str, Any]:
    """Return what the server checks the hosted model against."""
    model = runner.get_model()
    return {"model": type(model).__name__, "torch": str(torch.__version__), "vllm": str(VERSION)}
