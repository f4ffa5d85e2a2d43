"""The spread of a change over the hooked layers: one pair a position and layer, instead of one delta at the highest.

This is CoachHooK's recipe (section 3.3, from MEMIT). From the lowest layer up, each layer takes its share of the change
that is still missing at the highest layer's block output. The changes of the layers below are in place when a layer's
keys are read. This module knows nothing of scopes or thresholds.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from app.editors.base import FitProgress, Site
from app.editors.fitting.hooks import Act, StopForward
from app.editors.fitting.view import FitView
from app.editors.hook_layer.dual_form import Prior


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of E edits at M layers and J positions, fp32: keys (E, M, J, D_in), solved = C_0^-1 keys (E, M, J,
    D_in) and residuals (E, M, J, D_out)."""

    keys: Tensor
    solved: Tensor
    residuals: Tensor


class LayerSpread:
    """`view` is at the highest hooked layer and `above` at the next layer. `sites` lists the hooked layers, lowest
    first."""

    def __init__(self, view: FitView, above: FitView, sites: Sequence[Site]) -> None:
        self.view, self._above, self.sites = view, above, tuple(sites)

    def pairs(
        self, ids: Tensor, owner: Tensor, position: Tensor, real: Tensor, deltas: Tensor, priors: Sequence[Prior]
    ) -> Generator[FitProgress, None, Pairs]:
        """Return the pairs of each edit, measured without the others.

        ids (R, T), owner (R,) and position (R, J) with the mask `real` (R, J) are as in `Contexts`. The deltas
        (E, J, D) are those that the highest layer's output should change by.
        """
        progress = FitProgress(step=0, steps=len(self.sites), loss=float("nan"))
        hooks: dict[Site, Callable[[Tensor], Act]] = {}

        def by_passes(
            compute: Callable[[Tensor, Tensor, Mapping[Site, Act]], Tensor],
        ) -> Generator[FitProgress, None, Tensor]:
            def of_rows(rows: slice) -> Tensor:
                return compute(ids[rows], position[rows], {site: hook(owner[rows]) for site, hook in hooks.items()})

            return self.view.by_passes(ids.shape, of_rows, progress)

        goal = (yield from by_passes(self._block_outputs)) + deltas[owner]
        weights = row_weights(owner)  # (E, R)
        mask = torch.zeros(len(weights), position.shape[1], device=position.device).index_put((owner,), real.float())[
            ..., None
        ]
        keys, solved, residuals = [], [], []
        for layer, (site, prior) in enumerate(zip(self.sites, priors, strict=True)):
            inputs = yield from by_passes(partial(self._inputs, site))
            key = torch.einsum("er,rjd->ejd", weights, inputs) * mask
            missing = goal - (yield from by_passes(self._block_outputs))
            share = missing / (len(self.sites) - layer)
            residual = torch.einsum("er,rjd->ejd", weights, share) * mask
            solved_key = prior.solve(key.flatten(0, 1)).view_as(key)
            keys.append(key)
            solved.append(solved_key)
            residuals.append(residual)
            hooks[site] = _own_hook(key, solved_key, residual)
            loss = missing[real].norm(dim=-1).mean().item()
            yield (progress := FitProgress(step=layer + 1, steps=len(self.sites), loss=loss))
        return Pairs(*(torch.stack(each, 1) for each in (keys, solved, residuals)))

    @torch.no_grad()
    def _block_outputs(self, ids: Tensor, position: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Return the highest hooked layer's block output (R, J, D) fp32 at `position` (R, J), with `acts` in place."""
        rows = torch.arange(len(ids), device=position.device)[:, None]
        with self.view.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}):
            return self._above.hidden_below(ids)[rows, position].float()

    @torch.no_grad()
    def _inputs(self, site: Site, ids: Tensor, position: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """Return the site's input (R, J, D_in) fp32 at `position` (R, J), with `acts` in place below it."""
        inputs: list[Tensor] = []
        rows = torch.arange(len(ids), device=position.device)[:, None]

        def read(h_in: Tensor, _h_out: Tensor) -> Tensor:
            inputs.append(h_in[rows, position].float())
            raise StopForward

        chained = {**{below: (act,) for below, act in acts.items()}, site: (read,)}
        with self.view.hooks.applying(len(ids), chained), suppress(StopForward):
            self.view.run(ids)
        return inputs[0]


def row_weights(owner: Tensor) -> Tensor:
    """Return the weight of each row for each edit: owners (R,) -> (E, R). An edit's first row, its prompt, has half of
    the weight, and its other rows share the other half."""
    edits = int(owner.max()) + 1
    weights = torch.zeros(edits, len(owner), device=owner.device)
    for edit in range(edits):
        own = (owner == edit).nonzero()[:, 0]
        weights[edit, own[0]] = 1.0 if len(own) == 1 else 0.5
        weights[edit, own[1:]] = 0.5 / max(1, len(own) - 1)
    return weights


def _own_hook(keys: Tensor, solved: Tensor, residuals: Tensor) -> Callable[[Tensor], Act]:
    """Return the action of a hook layer, given the rows' owners (R,), for each row's own edit alone, at every token:
    `dual_form.solve` for each of the edits (E, J, ...)."""
    gram = torch.eye(keys.shape[1], device=keys.device) + keys @ solved.transpose(1, 2)
    coefficients = torch.linalg.solve(gram.transpose(1, 2), residuals)

    def act(owner: Tensor, h_in: Tensor, h_out: Tensor) -> Tensor:
        scores = h_in.float() @ solved[owner].transpose(1, 2)  # (R, T, J)
        changed: Tensor = h_out + (scores @ coefficients[owner]).to(h_out.dtype)
        return changed

    return lambda owner: partial(act, owner)
