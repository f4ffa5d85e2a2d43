"""The part of `bootstrap` for an engine over vLLM: vLLM itself, and the fitter beside it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from app.config import Settings
from app.domain.errors import InvalidRequest
from app.domain.progress import OnStep
from app.editors.base import Editor
from app.editors.registry import AUTO
from app.engine.fitter.fitter import Fitter
from app.engine.fitter.messages import FitterPlan
from app.engine.model import HostedModel, pick_device
from app.engine.vllm.attached import AttachedVllm
from app.engine.vllm.engine import ADAPTERS, VllmEngine
from app.engine.vllm.engine_arguments import speculates, vllm_arguments
from app.engine.vllm.process import VllmProcess
from app.engine.vllm.served_model import ServedModel
from app.engine.vllm.supervisor import VllmSupervisor
from app.scope.index import ScopeIndex


def vllm_engine(
    settings: Settings,
    hosted: HostedModel,
    editors: Mapping[str, Editor],
    bank_ids: Sequence[Sequence[int]],
    scope: ScopeIndex,
    slots: int,
    room_tokens: int | None,
    threads: int | None,
    on_step: OnStep,
) -> VllmEngine:
    """vLLM with the edits of `editors`, and a fitter if the server itself holds no weights. Raises InvalidRequest or
    UnsupportedModel."""
    if settings.fitter_device is not None and not hosted.is_outline:
        raise InvalidRequest(
            "ERRATA_FITTER_DEVICE is for fits in a process of their own, and here the server fits: leave it out, or "
            "ERRATA_FITTER=inline and `enable_lora`."
        )
    arguments = _arguments(settings, hosted, editors, slots, room_tokens)
    fitter = _fitter(settings, hosted, bank_ids, threads, on_step) if hosted.is_outline else None
    try:
        vllm = _vllm(settings, hosted, arguments, on_step)
    except BaseException:
        if fitter is not None:
            fitter.stop()
        raise
    return VllmEngine(
        hosted,
        editors,
        scope,
        slots=slots,
        queue_limit=settings.queue_limit,
        fit_share=settings.fit_share,
        vllm=vllm,
        fitter=fitter,
        adapter_rank=arguments["max_lora_rank"] if arguments.get("enable_lora") else 0,
        speculates=speculates(arguments),
    )


def _arguments(
    settings: Settings, hosted: HostedModel, editors: Mapping[str, Editor], slots: int, room_tokens: int | None
) -> dict[str, Any]:
    """vLLM's arguments: the same weights, and room for as many tokens as this server's own engine would have."""
    if settings.judge == "hosted":
        raise InvalidRequest("The judge `hosted` cannot be asked through vLLM: name a cross-encoder, or leave it off.")
    adapters = editors[ADAPTERS].extras.fixed_adapters
    assert adapters is not None, "edits of this editor are LoRAs"
    site, room_tokens = editors[AUTO[0]].sites[0], room_tokens or slots * hosted.max_tokens
    return vllm_arguments(hosted, site, slots, room_tokens, settings.model_revision, adapters, settings.vllm_arguments)


def _fitter(
    settings: Settings,
    hosted: HostedModel,
    bank_ids: Sequence[Sequence[int]],
    threads: int | None,
    on_step: OnStep,
) -> Fitter:
    """The process that fits edits. It holds the upper layers and asks vLLM for the states that enter them; beside a
    vLLM that runs already, whose states it cannot ask for, it holds the whole model."""
    fitter = Fitter(fitter_plan(settings, hosted, bank_ids, threads))
    on_step("starting the process that fits edits", 0, 0)
    fitter.begin()
    return fitter


def fitter_plan(
    settings: Settings, hosted: HostedModel, bank_ids: Sequence[Sequence[int]], threads: int | None
) -> FitterPlan:
    """The model that the fitter of an outline loads, and its device. Raises InvalidRequest for a GPU that is not
    there."""
    return FitterPlan(
        model=hosted.model.name_or_path,
        model_revision=settings.model_revision,
        device=str(hosted.device if settings.fitter_device is None else pick_device(settings.fitter_device)),
        dtype=str(hosted.dtype).removeprefix("torch."),
        site_layer=settings.site_layer,
        bank_ids=bank_ids,
        threads=threads,
        asks_for_states=settings.vllm_url is None,
    )


def _vllm(settings: Settings, hosted: HostedModel, arguments: Mapping[str, Any], on_step: OnStep) -> VllmSupervisor:
    if settings.vllm_url is not None:
        site = arguments["additional_config"]["errata"]["site"]
        url, key, served = settings.vllm_url, _vllm_key(settings), ServedModel.of(hosted, site)
        on_step(f"connecting to vLLM at {url}", 0, 0)
        return VllmSupervisor(lambda: AttachedVllm(url, key, served), deadline_s=settings.vllm_deadline_s)
    python = settings.vllm_python or sys.executable
    on_step(f"starting vLLM with {python}", 0, 0)
    keeps_off = hosted.is_outline  # else this process fits, for which it needs cores
    return VllmSupervisor(
        lambda: VllmProcess(python, arguments, keeps_off=keeps_off), deadline_s=settings.vllm_deadline_s
    )


def _vllm_key(settings: Settings) -> str:
    if settings.vllm_key is None:
        raise InvalidRequest("ERRATA_VLLM_KEY is missing: the key that the vLLM at ERRATA_VLLM_URL was started with.")
    if settings.vllm_arguments:
        raise InvalidRequest("ERRATA_VLLM_ARGUMENTS is for a vLLM that this server starts: leave it out.")
    return settings.vllm_key.get_secret_value()
