"""The only module that reads names inside vLLM's workers. `front` reads those of the process in front of them.

Each name is imported, or checked at the start by its entry in `names`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm import SamplingParams
from vllm import __version__ as VERSION
from vllm.distributed.parallel_state import get_pp_group
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.v1.sample import rejection_sampler
from vllm.v1.worker.gpu_input_batch import CachedRequestState

from .lookahead import Lookahead
from .names import (
    ADAPTER_NAMES,
    CONFIG_NAMES,
    LAYER_NAMES,
    PARAMETER_NAMES,
    REQUEST_NAMES,
    RUNNER_NAMES,
    VllmRefusal,
    check_instances,
    check_names,
)
from .rows import ADAPTER_PATH, DRAFTERS, StepSpan
from .site import SITES, install
from .states import install as read_states
from .states import layer_of

LOAD_FORMAT = "errata"
CONFIG = "errata"
"""The key of Errata's part in vLLM's `additional_config`, which is part of the name of a compiled graph."""


def check_config(config: Any) -> None:
    """Raise VllmRefusal for a setting of vLLM under which the rows of an edit would be placed wrongly, or that it
    does not have."""
    check_names(config, CONFIG_NAMES, "its settings")
    drafter = _drafter(config.speculative_config)
    refusals = {
        f"speculative decoding by {drafter}": drafter not in (None, *DRAFTERS),
        "async scheduling": bool(config.scheduler_config.async_scheduling),
        "the V2 model runner": bool(config.use_v2_model_runner),
        "dual batch overlap": bool(config.parallel_config.enable_dbo),
        # each rank would compute a part of the positions, and place the rows by the positions of all
        "prefill context parallelism": config.parallel_config.prefill_context_parallel_size > 1,
        "data parallelism": config.parallel_config.data_parallel_size > 1,  # one engine alone would hold the rows
    }
    for name, refused in refusals.items():
        if refused:
            raise VllmRefusal(f"Edits cannot be served with {name} of vLLM {VERSION}: switch it off.")


def _drafter(speculation: Any) -> str | None:
    """The name of what drafts tokens: that of a class of its own, else that of vLLM's method; None without drafts."""
    if speculation is None:
        return None
    return str(speculation.model if speculation.method == "custom_class" else speculation.method)


def check_sum(module: nn.Module, site: str) -> None:
    """Raise VllmRefusal if what a site's module returns is only this tensor-parallel rank's part of a sum: a row would
    be added once by each rank."""
    for each in module.modules():
        if getattr(each, "tp_size", 1) > 1 and not getattr(each, "reduce_results", True):
            raise VllmRefusal(
                f"vLLM {VERSION} sums the parts of {site} over tensor-parallel workers only after it, so that edits "
                "would act several times: set tensor_parallel_size to 1."
            )


def check_runner(runner: Any) -> None:
    """Raise VllmRefusal if the model runner, or what it will hold of requests, lacks a name that is read for edits."""
    check_names(runner, RUNNER_NAMES, "its model runner")
    check_instances(CachedRequestState, REQUEST_NAMES, "a request's")
    check_instances(SamplingParams, PARAMETER_NAMES, "a request's")


def spans(runner: Any) -> Iterator[tuple[int, Mapping[str, Any], StepSpan]]:
    """Yield, for each request of the prepared step that has extra arguments, its first place in the flat batch, those
    arguments, and its span."""
    batch, starts = runner.input_batch, runner.query_start_loc.np
    for at, request_id in enumerate(batch.req_ids):
        state = runner.requests[request_id]
        parameters, drafted = state.sampling_params, batch.spec_token_ids[at]
        if parameters is None or not parameters.extra_args:
            continue
        first = int(starts[at])
        yield (
            first,
            parameters.extra_args,
            StepSpan(
                first=int(batch.num_computed_tokens_cpu[at]),
                count=int(starts[at + 1]) - first,
                prompt_tokens=int(state.num_prompt_tokens),
                generated=[*state.output_token_ids, *drafted] if drafted else state.output_token_ids,
            ),
        )


def answer_at(runner: Any, at: int) -> tuple[Mapping[str, Any] | None, Sequence[int]] | None:
    """Return the extra arguments and the answer so far of the request at a place of the batch; None if it samples."""
    state = runner.requests[runner.input_batch.req_ids[at]]
    parameters = state.sampling_params
    if parameters is None or parameters.temperature > 0:
        return None
    return parameters.extra_args, state.output_token_ids


def serve_drafts(runner: Any, draft: Callable[[int], Sequence[int]]) -> None:
    """Have the drafter ask `draft` if it is Errata's. Only a worker that samples has a drafter."""
    if runner.vllm_config.speculative_config is None or not get_pp_group().is_last_rank:
        return
    check_names(runner, ["drafter"], "its model runner")
    if isinstance(runner.drafter, Lookahead):
        runner.drafter.draft = draft
    if runner.device.type == "cpu":
        check_names(rejection_sampler, ["expand_batch_to_tokens"], "its rejection sampler")
        # vLLM's own writes into a copy on a CPU: drafted tokens beside sampled answers are chosen by temperatures that
        # nobody set, and greedy ones with them.
        rejection_sampler.expand_batch_to_tokens = expanded


def expanded(x: Tensor, ends: Tensor, _count: int, replace_from: int = 0, replace_to: int = 0) -> Tensor:
    """Return each request's value of x (B,) for each of its drafted tokens, (N,), with one value replaced by another.
    `ends` (B,): the running total of these tokens."""
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    return torch.where(x == replace_from, torch.full_like(x, replace_to), x).repeat_interleave(counts)


def around_forward(runner: Any, prepare: Callable[[], None], finish: Callable[[], None]) -> None:
    """Have `prepare` called before each forward pass of scheduled requests, after their inputs were laid out, and
    `finish` after it. Both run outside of compiled graphs."""
    forward = runner._model_forward

    def prepared(*args: Any, **kwargs: Any) -> Any:
        prepare()
        result = forward(*args, **kwargs)
        finish()
        return result

    runner._model_forward = prepared


def receive_states(runner: Any) -> None:
    """Make the buffers in which a later stage of a pipeline receives the states of the one before it.

    vLLM makes them in its first warm-up, which it leaves out on a CPU that does not compile: the stage would fail its
    first request.
    """
    if get_pp_group().is_first_rank or runner.intermediate_tensors is not None:
        return
    check_names(runner.get_model(), ["make_empty_intermediate_tensors"], "its model")
    runner.intermediate_tensors = runner.get_model().make_empty_intermediate_tensors(
        batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
    )


def hold_generators(runner: Any) -> None:
    """On a CPU, keep the generators of seeded requests out of a step that computes only a part of their prompt.

    vLLM discards what is sampled there and turns the generator back, which that of a CPU cannot: its engine would die.
    """
    if runner.device.type != "cpu":
        return
    generators = runner.input_batch.generators
    for at, request_id in enumerate(runner.input_batch.req_ids):
        generator = runner.requests[request_id].generator
        if generator is not None and runner.discard_request_mask.np[at]:
            generators.pop(at, None)
        elif generator is not None:
            generators[at] = generator


def serve_adapters(runner: Any, find: Callable[[int], Mapping[str, Tensor]]) -> None:
    """Have vLLM take the LoRAs at ADAPTER_PATH from `find`, by number; all others it reads from folders as ever.

    `find` returns tensors by their names in PEFT; with none of them a request runs without a LoRA. Does nothing where
    vLLM was started without LoRAs. Raises VllmRefusal if a site of the edits' rows became part of a LoRA.
    """
    if runner.lora_config is None:
        return
    check_names(runner, ADAPTER_NAMES, "its model runner")
    modules = runner.lora_manager._adapter_manager.modules
    if taken := sorted(SITES.keys() & modules.keys()):
        raise VllmRefusal(
            f"LoRAs act at {taken[0]}, where the rows of edits are added: serve this model without enable_lora."
        )
    read = runner.lora_manager._load_adapter

    def load(request: LoRARequest) -> LoRAModel:
        if request.lora_path != ADAPTER_PATH:
            return read(request)
        tensors = dict(find(request.lora_int_id))
        rank = max((len(tensor) for name, tensor in tensors.items() if ".lora_A." in name), default=1)
        config = PEFTHelper(r=rank, lora_alpha=rank, target_modules=[])
        dtype = runner.lora_config.lora_dtype
        return LoRAModel.from_lora_tensors(request.lora_int_id, tensors, config, device="cpu", dtype=dtype)

    runner.lora_manager._load_adapter = load
    if runner.device.type == "cpu":
        # The kernels for CPUs take the index -1, which means no LoRA, for the last place (vLLM's pull request 48421):
        # requests without a LoRA would get the LoRA there. An empty place after the last one makes it right, in the
        # second factor alone: whatever the first gives is multiplied by zero.
        for module in modules.values():
            check_names(module, LAYER_NAMES, "its layer")
            module.lora_b_stacked = _with_empty_place(module.lora_b_stacked)


def _with_empty_place(stacked: Tensor | Sequence[Tensor]) -> Any:
    """Return places for LoRAs, (places, 1, N, rank), and one more: one tensor in an embedding and in the head, several
    in a linear map that was put together from some."""
    if isinstance(stacked, Tensor):
        return torch.cat([stacked, torch.zeros_like(stacked[:1])])
    return tuple(_with_empty_place(each) for each in stacked)


def forget_adapter(runner: Any, number: int) -> None:
    """Take a LoRA out of vLLM's cache of them."""
    runner.lora_manager.remove_adapter(number)


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
        check_sum(module, given["site"])
        buffers: dict[str, Any] = {
            "rows": vllm_config.scheduler_config.max_num_batched_tokens,
            "width": model_config.get_hidden_size(),
            "dtype": model_config.dtype,
            "device": next(model.parameters()).device,
        }
        install(module, given["site"], **buffers)
        layer = layer_of(given["site"])
        if not read_states(model.get_submodule(layer), layer, **buffers):
            raise VllmRefusal(f"The layers of {type(model).__name__} in vLLM {VERSION} do not name their input.")
        return model


def model_facts(runner: Any) -> dict[str, Any]:
    """Return what the server checks the hosted model against."""
    model = runner.get_model()
    return {
        "model": type(model).__name__,
        "torch": str(torch.__version__),
        "vllm": str(VERSION),
        "grammar_backend": str(runner.vllm_config.structured_outputs_config.backend),
    }
