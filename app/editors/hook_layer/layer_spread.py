"""From what the top hooked layer should add at some positions to one pair a position and hooked layer.

CoachHooK's layer sweep (MEMIT's, section 3.3): from the lowest layer up, each takes its share of what is still missing
at the block output of the highest; what the layers below it have changed is in place when its keys are read. Knows
nothing of scopes or thresholds.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from app.editors.base import Progress, Site
from app.editors.fitting.hooks import Act, StopForward
from app.editors.fitting.view import FitView
from app.editors.hook_layer.dual_form import Prior


@dataclass(frozen=True, slots=True)
class Pairs:
    """keys (E, M, J, D_in), solved = C_0^-1 keys (E, M, J, D_in), residuals (E, M, J, D_out), fp32."""

    keys: Tensor
    solved: Tensor
    residuals: Tensor


class Sweep:
    """`view` is at the highest hooked layer, `above` at the layer that follows it; `sites` from the lowest."""

    def __init__(self, view: FitView, above: FitView, sites: Sequence[Site]) -> None:
        self.view, self._above, self.sites = view, above, tuple(sites)

    def pairs(
        self, ids: Tensor, owner: Tensor, at: Tensor, real: Tensor, deltas: Tensor, priors: Sequence[Prior]
    ) -> Generator[Progress, None, Pairs]:
        """ids (R, T), owner (R,), positions `at` (R, J) where `real`, deltas (E, J, D) -> pairs, each edit's alone."""
        rows = torch.arange(len(ids), device=at.device)[:, None]
        wanted = self._above.hidden_below(ids)[rows, at].float() + deltas[owner]
        weights = row_weights(owner)  # (E, R)
        there = torch.zeros(len(weights), at.shape[1], device=at.device).index_put((owner,), real.float())[..., None]
        acts: dict[Site, Act] = {}
        keys, solved, residuals = [], [], []
        for layer, (site, prior) in enumerate(zip(self.sites, priors, strict=True)):
            key = torch.einsum("er,rjd->ejd", weights, self._inputs(site, ids, at, acts)) * there
            missing = wanted - self._out(ids, acts)[rows, at]
            share = missing / (len(self.sites) - layer)
            residual = torch.einsum("er,rjd->ejd", weights, share) * there
            p = prior.solve(key.flatten(0, 1)).view_as(key)
            keys.append(key)
            solved.append(p)
            residuals.append(residual)
            acts[site] = _own(key, p, residual, owner)
            yield Progress(step=layer + 1, steps=len(self.sites), loss=missing[real].norm(dim=-1).mean().item())
        return Pairs(*(torch.stack(each, 1) for each in (keys, solved, residuals)))

    @torch.no_grad()
    def _out(self, ids: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """(R, T, D) fp32: the block output of the highest hooked layer, with `acts` in place."""
        with self.view.hooks.applying(len(ids), {site: (act,) for site, act in acts.items()}):
            return self._above.hidden_below(ids).float()

    @torch.no_grad()
    def _inputs(self, site: Site, ids: Tensor, at: Tensor, acts: Mapping[Site, Act]) -> Tensor:
        """(R, J, D_in) fp32: the site's input at `at`, with `acts` in place below it."""
        found: list[Tensor] = []
        rows = torch.arange(len(ids), device=at.device)[:, None]

        def read(h_in: Tensor, _h_out: Tensor) -> Tensor:
            found.append(h_in[rows, at].float())
            raise StopForward

        chained = {**{below: (act,) for below, act in acts.items()}, site: (read,)}
        with self.view.hooks.applying(len(ids), chained), suppress(StopForward):
            self.view.run(ids)
        return found[0]


def row_weights(owner: Tensor) -> Tensor:
    """(R,) owners -> (E, R): of an edit's rows the first, its own prompt, counts half, the others the other half."""
    edits = int(owner.max()) + 1
    weights = torch.zeros(edits, len(owner), device=owner.device)
    for edit in range(edits):
        mine = (owner == edit).nonzero()[:, 0]
        weights[edit, mine[0]] = 1.0 if len(mine) == 1 else 0.5
        weights[edit, mine[1:]] = 0.5 / max(1, len(mine) - 1)
    return weights


def _own(keys: Tensor, solved: Tensor, residuals: Tensor, owner: Tensor) -> Act:
    """Each row's own edit as a hook layer at every token: `dual_form.solve` for each edit (E, J, ...) by itself."""
    gram = torch.eye(keys.shape[1], device=keys.device) + keys @ solved.transpose(1, 2)
    spread = torch.linalg.solve(gram.transpose(1, 2), residuals)

    def act(h_in: Tensor, h_out: Tensor) -> Tensor:
        amount = h_in.float() @ solved[owner].transpose(1, 2)  # (R, T, J)
        changed: Tensor = h_out + (amount @ spread[owner]).to(h_out.dtype)
        return changed

    return act
