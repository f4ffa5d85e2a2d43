"""The editors by name, and what each needs to be made. One line adds an editor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.editors.base import BankPrompt, Editor
from app.editors.fit import FitView
from app.editors.grace import Grace
from app.editors.hooks import SiteHooks
from app.editors.memory import memory_of
from app.editors.metric import Metric, calibrate
from app.editors.patcher import Patcher
from app.editors.sites import Architecture, ffn_site, layers_of

AUTO = ("grace", "patcher")
"""What `editor: auto` tries, in this order, until an edit holds when it is verified: what measures best comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What editors are built on: the frozen model, its hooks, and generic prompts with their token ids."""

    model: Any
    architecture: Architecture
    hooks: SiteHooks
    site_layer: int | None
    bank: Sequence[BankPrompt] = ()
    bank_ids: Sequence[Sequence[int]] = ()


def _grace(foundation: Foundation) -> Grace:
    site = ffn_site(foundation.model, foundation.architecture, foundation.site_layer)
    view = FitView(foundation.model, foundation.architecture, site, foundation.hooks)
    plain = Metric(None, radius=1.0)
    metric = calibrate(view.keys(foundation.bank_ids), foundation.bank) if foundation.bank else plain
    return Grace(view, metric, _template_words(foundation))


def _patcher(foundation: Foundation) -> Patcher:
    last = len(layers_of(foundation.model, foundation.architecture)) - 1
    site = ffn_site(foundation.model, foundation.architecture, last)
    view = FitView(foundation.model, foundation.architecture, site, foundation.hooks)
    memory = memory_of(view.inputs_of(foundation.bank_ids), view.widths[0], view.device)
    return Patcher(view, memory, _template_words(foundation))


def _template_words(foundation: Foundation) -> frozenset[str]:
    return frozenset(word for prompt in foundation.bank for word in prompt.words)


EDITORS: Mapping[str, Callable[[Foundation], Editor]] = {
    "grace": _grace,
    "patcher": _patcher,
}
