"""The material that every editor is built from: the frozen model, its hooks, and generic text. Knows no editor."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.editors.base import Editor, Site
from app.editors.fitting.corpus import Statistics
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.sites import Architecture, down_site, ffn_site, layers_of
from app.editors.fitting.view import BaseStates, FitView


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """One frozen model with everything that the editors on it share."""

    model: Any
    architecture: Architecture
    hooks: SiteHooks
    site_layer: int | None
    """The layer of the shared site, or None for the middle layer."""
    bank_ids: Sequence[Sequence[int]] = ()
    """Token ids of generic questions, one sequence a question."""
    statistics: Statistics
    options: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters by editor key, for editors that are not to use their defaults."""
    base_states: BaseStates | None = None
    """The source of the states that enter the shared site's layer, for a model without the layers below it."""
    _shared_views: list[FitView] = field(default_factory=list)

    @property
    def layer_count(self) -> int:
        return len(layers_of(self.model, self.architecture))

    @property
    def shared_view(self) -> FitView:
        """The view at the FFN of `site_layer`. It is made once for all editors that use it."""
        if not self._shared_views:
            site = ffn_site(self.model, self.architecture, self.site_layer)
            self._shared_views.append(
                FitView(self.model, self.architecture, site, self.hooks, base_states=self.base_states)
            )
        return self._shared_views[0]

    @property
    def last_ffn_view(self) -> FitView:
        """A view at the FFN of the last layer."""
        return self.view(ffn_site(self.model, self.architecture, self.layer_count - 1))

    def down_sites(self, layers: Iterable[int]) -> list[Site]:
        """Return the sites at the down-projections of these layers."""
        return [down_site(self.model, self.architecture, layer) for layer in layers]

    def view(self, site: Site, sites: Sequence[Site] = ()) -> FitView:
        """Return a new view whose lowest site is `site`, and in which edits may act at `sites` above it too."""
        return FitView(self.model, self.architecture, site, self.hooks, sites)


Presets = Mapping[str, Callable[[Foundation], Editor]]
"""The builders of an editor by preset. `serving` is the default preset; `paper` is the method as published."""
