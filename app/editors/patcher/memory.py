"""What generic text looks like at a site: the queries that a patch neuron must be silent on, and their covariance."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.editors.patcher.whitening import whitening

ONE_IN = 2000
"""So many memory rows may rouse a neuron: generic text may tell the very fact that is corrected, in other words."""
MAX_ROWS = 40_000
"""As published: the 40,000 queries that are kept for the margins."""
NEAREST = 0.95
"""Zero lies below what the least of a neuron's own contexts reaches, by this factor: it still fires, if barely."""


class Memory:
    """rows (N, D_in) fp32, whitened about their mean; none: every direction counts alike, and only counter-examples."""

    def __init__(self, queries: Tensor, width: int, device: torch.device) -> None:
        self._mean = torch.zeros(width, device=device)
        self._whiten = torch.eye(width, device=device)
        if len(queries):
            self._mean = queries.mean(0)
            self._whiten = whitening(queries - self._mean)
        self._rows = self._whitened(queries) if len(queries) else torch.zeros(0, width, device=device)

    def _whitened(self, queries: Tensor) -> Tensor:
        return (queries - self._mean) @ self._whiten

    def neuron(self, queries: Tensor, silent_on: Sequence[Tensor], *, share: float) -> Tensor:
        """(R, D_in) queries of one token in R contexts -> (D_in + 1,): key and bias.

        With C the memory's covariance and q the mean query, t(x) = (x - m)' C^-1 (q - m) is linear in x and stands out
        most at q (Fisher's discriminant). Scaled and shifted it is 1 at the first query and 0 at `share` of the way
        from the largest t, of the memory (but for one row in ONE_IN) and of `silent_on`, to there.
        """
        own = self._whitened(queries)  # (R, D)
        direction = own.mean(0)
        mine = own @ direction
        nearest = self._nearest(direction, silent_on)
        zero = nearest + share * (mine[0] - nearest)
        # a context that lies lower than that, if the first stands out at all, moves zero below itself
        zero = torch.minimum(zero, NEAREST * mine.min()) if mine.min() > 0 else zero
        scale = 1 / (mine[0] - zero).clamp(min=1e-6)
        key = scale * (self._whiten @ direction)
        bias = -(self._mean @ key) - scale * zero
        return torch.cat([key, bias[None]])

    def _nearest(self, direction: Tensor, silent_on: Sequence[Tensor]) -> Tensor:
        tops = [(self._whitened(each) @ direction).max() for each in silent_on if len(each)]
        if len(self._rows):
            tops.append((self._rows @ direction).topk(1 + len(self._rows) // ONE_IN).values[-1])
        return torch.stack(tops).max() if tops else torch.zeros((), device=direction.device)


def without_first(inputs: Sequence[Tensor], width: int, device: torch.device) -> Tensor:
    """The site's inputs (T, D_in) over texts -> (N, D_in), without first positions: many models put a sink there."""
    rows = [each[1:] for each in inputs if len(each) > 1]
    return torch.cat(rows) if rows else torch.zeros(0, width, device=device)
