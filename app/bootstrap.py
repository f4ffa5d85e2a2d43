"""From settings to a service: the only file that knows every room."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from app.config import DEMO_MODEL, Settings
from app.domain.errors import UnsupportedModel
from app.editors.bank import load_bank
from app.editors.base import BankPrompt, Editor
from app.editors.hooks import SiteHooks
from app.editors.registry import EDITORS, Foundation
from app.engine.engine import Engine
from app.engine.model import HostedModel, load_model, pick_device, pick_dtype
from app.engine.owner import EngineOwner
from app.service.records import Clock
from app.service.service import Service
from app.store.base import Log
from app.store.open import open_log


def build_service(settings: Settings, clock: Clock = time.time) -> Service:
    """Loads the model and opens the log. Blocking; raises UnknownModel, UnsupportedModel or what the store raises."""
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    log = open_log(settings.store, **settings.log_options())
    try:
        hosted = _load(settings)
        return assemble(hosted, log, settings, bank=load_bank(), clock=clock)
    except BaseException:
        log.close()
        raise


def assemble(
    hosted: HostedModel, log: Log, settings: Settings, *, bank: Sequence[BankPrompt] = (), clock: Clock = time.time
) -> Service:
    """A service around a model that is loaded already and a log that is open."""
    hooks = SiteHooks(hosted.model)
    foundation = Foundation(
        model=hosted.model,
        architecture=hosted.architecture,
        hooks=hooks,
        site_layer=settings.site_layer,
        bank=bank,
        bank_ids=[hosted.tokenizer(prompt.text).input_ids for prompt in bank],
    )
    editors: dict[str, Editor] = {name: make(foundation) for name, make in EDITORS.items()}
    slots = _slots(settings, hosted)
    engine = Engine(
        hosted,
        hooks,
        editors,
        slots=slots,
        chunk_tokens=settings.prefill_chunk_tokens,
        queue_limit=settings.queue_limit,
    )
    # each editor's own: one that is added later leaves the edits of the others as they are
    fingerprints = {
        name: f"{hosted.fingerprint[:32]}/{'+'.join(str(site) for site in editor.sites)}"
        for name, editor in editors.items()
    }
    return Service(
        EngineOwner(engine),
        log,
        fingerprints=fingerprints,
        history_revisions=settings.history_revisions,
        max_new_tokens_limit=settings.max_new_tokens_limit,
        reason_required=settings.reason_required,
        snapshot_period_s=settings.snapshot_period_s,
        snapshot_min_events=settings.snapshot_min_events,
        clock=clock,
        describe=lambda: {"slots": slots, "max_sequence_tokens": hosted.max_tokens},
    )


def _load(settings: Settings) -> HostedModel:
    device = pick_device(settings.device)
    is_demo = settings.model == "demo"
    return load_model(
        str(DEMO_MODEL) if is_demo else settings.model,
        label=settings.model,
        model_revision=settings.model_revision,
        device=device,
        dtype=pick_dtype(settings.dtype, device),
        max_tokens=settings.max_sequence_tokens,
    )


def _slots(settings: Settings, hosted: HostedModel) -> int:
    """As many as asked for, unless their keys and values would not fit the memory that they may take."""
    budget = settings.kv_memory_fraction * _free_bytes(hosted.device)
    a_slot = hosted.kv_bytes_per_token() * (hosted.max_tokens + 1)
    fitting = int(budget // a_slot)
    if fitting < 1:
        raise UnsupportedModel(
            f"The memory free on {hosted.device} holds no sequence of {hosted.max_tokens} tokens "
            f"({a_slot / 2**20:.0f} MiB): lower max_sequence_tokens or raise kv_memory_fraction."
        )
    return min(settings.slots, fitting)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        free: Any = torch.cuda.mem_get_info(device)[0]
        return float(free)
    with open("/proc/meminfo") as meminfo:
        fields = dict(line.split(":", 1) for line in meminfo)
    return float(fields["MemAvailable"].split()[0]) * 1024
