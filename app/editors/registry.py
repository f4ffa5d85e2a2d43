"""The editors by name, and what each needs to be made. One line adds an editor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.activations import ACT2FN

from app.editors.base import Editor
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.sites import Architecture, down_site, ffn_site, layers_of
from app.editors.fitting.tensor_cache import Kept
from app.editors.fitting.view import FitView
from app.editors.grace.paper import GraceOptions, GracePaper
from app.editors.grace.serving import Grace
from app.editors.hook_layer.layer_spread import Sweep
from app.editors.hook_layer.paper import HookLayersPaper
from app.editors.hook_layer.serving import HookLayers
from app.editors.hook_layer.subject_value import SubjectSweep
from app.editors.lora_mixture.paper import LoraMixturePaper
from app.editors.lora_mixture.serving import LoraMixture
from app.editors.patcher.paper import MOST_STEPS, PatcherPaper
from app.editors.patcher.serving import Patcher

AUTO = ("grace", "patcher", "lora_mixture", "hook_layer")
"""What `editor: auto` tries until an edit holds when it is verified: the best first, then by what a fit costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What editors are built on: the frozen model, its hooks, and generic prompts as token ids."""

    model: Any
    architecture: Architecture
    hooks: SiteHooks
    site_layer: int | None
    bank_ids: Sequence[Sequence[int]] = ()
    statistics: Statistics
    kept: Kept = field(default_factory=Kept)
    """Where what is computed of the model once is kept from one start to the next."""
    grace_options: GraceOptions = field(default_factory=GraceOptions)
    """GRACE's hyperparameters as published."""
    views: list[FitView] = field(default_factory=list)
    most_patch_steps: int = MOST_STEPS
    """After which Transformer-Patcher as published gives up."""


def _middle(foundation: Foundation) -> FitView:
    """The middle layer's view: made once for all that want it."""
    if not foundation.views:
        site = ffn_site(foundation.model, foundation.architecture, foundation.site_layer)
        foundation.views.append(FitView(foundation.model, foundation.architecture, site, foundation.hooks))
    return foundation.views[0]


ELSEWHERE = 2
"""Generic questions after which a value must give its answer as well: a paraphrase may lie far from its prompt."""


def _grace(foundation: Foundation) -> Grace:
    every = max(1, len(foundation.bank_ids) // ELSEWHERE)
    elsewhere = foundation.bank_ids[every // 2 :: every][:ELSEWHERE]
    return Grace(_middle(foundation), elsewhere=elsewhere)


def _lora_mixture(foundation: Foundation) -> LoraMixture:
    layers = mixture_layers(len(layers_of(foundation.model, foundation.architecture)))
    sites = [down_site(foundation.model, foundation.architecture, layer) for layer in layers]
    view = FitView(foundation.model, foundation.architecture, sites[0], foundation.hooks, sites)
    return LoraMixture(view, sites, _middle(foundation))


def mixture_layers(count: int) -> range:
    """The published place, the last but one fifth of the layers (LLaMA-2: 21 to 26 of 32), for models of any depth."""
    last = min(count - 1, round(0.8 * count))
    return range(max(0, last + 1 - min(6, max(2, count // 2))), last + 1)


def _grace_paper(foundation: Foundation) -> GracePaper:
    count = len(layers_of(foundation.model, foundation.architecture))
    # as published: LLaMA-2's layer 27 of 32
    site = down_site(foundation.model, foundation.architecture, min(count - 1, 27 * count // 32))
    view = FitView(foundation.model, foundation.architecture, site, foundation.hooks)
    return GracePaper(view, foundation.grace_options)


def _patcher_paper(foundation: Foundation) -> PatcherPaper:
    last = len(layers_of(foundation.model, foundation.architecture)) - 1
    site = ffn_site(foundation.model, foundation.architecture, last)
    view = FitView(foundation.model, foundation.architecture, site, foundation.hooks)
    config = foundation.model.config
    names = ("hidden_act", "activation_function", "hidden_activation")
    named = next(name for each in names if (name := getattr(config, each, None)))
    return PatcherPaper(view, foundation.statistics, ACT2FN[named], foundation.most_patch_steps)


def _lora_mixture_paper(foundation: Foundation) -> LoraMixturePaper:
    model, architecture, hooks = foundation.model, foundation.architecture, foundation.hooks
    sites = [down_site(model, architecture, layer) for layer in mixture_layers(len(layers_of(model, architecture)))]
    view = FitView(model, architecture, sites[0], hooks, sites)
    # as published: the query is the input of the down-projection before the first mixture
    query_view = FitView(model, architecture, down_site(model, architecture, max(0, sites[0].layer - 1)), hooks)
    return LoraMixturePaper(view, sites, query_view)


def _hook_layer_paper(foundation: Foundation) -> HookLayersPaper:
    model, architecture, hooks = foundation.model, foundation.architecture, foundation.hooks
    count = len(layers_of(model, architecture))
    first = max(1, round(count / 8))  # as published: LLaMA-2's layers 4 to 8 of 32
    layers = range(first, min(count - 1, first + min(5, max(2, count // 4))))
    sites = [down_site(model, architecture, layer) for layer in layers]
    view = FitView(model, architecture, sites[0], hooks, sites)
    above = FitView(model, architecture, down_site(model, architecture, layers[-1] + 1), hooks)
    return HookLayersPaper(SubjectSweep(view, above, sites), foundation.statistics)


def _hook_layer(foundation: Foundation) -> HookLayers:
    model, architecture, hooks = foundation.model, foundation.architecture, foundation.hooks
    layers = hooked_layers(len(layers_of(model, architecture)))
    sites = [down_site(model, architecture, layer) for layer in layers]
    view = FitView(model, architecture, sites[-1], hooks, sites)
    above = FitView(model, architecture, down_site(model, architecture, layers[-1] + 1), hooks)
    sweep = Sweep(view, above, sites)
    return HookLayers(sweep, foundation.statistics)


def hooked_layers(count: int) -> range:
    """Middle layers, at most five of them, with one above."""
    first = min(count // 2, count - 2)
    return range(first, min(count - 1, first + min(5, max(2, count // 4))))


def _patcher(foundation: Foundation) -> Patcher:
    last = len(layers_of(foundation.model, foundation.architecture)) - 1
    site = ffn_site(foundation.model, foundation.architecture, last)
    view = FitView(foundation.model, foundation.architecture, site, foundation.hooks)
    return Patcher(view, foundation.statistics, foundation.bank_ids)


EDITORS: Mapping[str, Mapping[str, Callable[[Foundation], Editor]]] = {
    "grace": {"serving": _grace, "paper": _grace_paper},
    "patcher": {"serving": _patcher, "paper": _patcher_paper},
    "lora_mixture": {"serving": _lora_mixture, "paper": _lora_mixture_paper},
    "hook_layer": {"serving": _hook_layer, "paper": _hook_layer_paper},
}
"""Editor -> preset -> what makes it. `serving` is the default; `paper` is the method as it was published."""


def make_editors(foundation: Foundation) -> dict[str, Editor]:
    """Every editor under every preset, by its key."""
    made = [make(foundation) for presets in EDITORS.values() for make in presets.values()]
    return {editor.key: editor for editor in made}
