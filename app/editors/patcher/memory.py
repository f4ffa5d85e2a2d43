"""The memory: generic queries at a site that a patch neuron must be silent on. They are whitened: their variance is
the same in every direction, so that Euclidean distances are Mahalanobis distances."""

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_ROWS = 40_000
"""The size of the memory as published: 40,000 queries for the margins."""
ROWS_PER_EXCEPTION = 2000
"""A neuron may fire on one memory row in this many: generic text may state the corrected fact itself in other words."""
OWN_MARGIN = 0.95
"""The gate's zero lies below the lowest of a neuron's own contexts by this factor, so that the neuron just fires."""
SILENT_WEIGHT = 10.0
"""The weight of a state that a neuron must be silent on, in a covariance where the whole memory has the weight 1."""
SHRINKAGE = 0.1
"""The share of the mean variance that is added to every direction, because samples are few beside a model's width."""


class Memory:
    """Memory rows (N, D_in) fp32, whitened about their mean.

    Without rows, every direction counts alike and a neuron is silent only on counter-examples.
    """

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
        """(R, D_in) queries of one token in R contexts -> (D_in + 1,): the neuron's key, then its bias.

        Let C be the memory's covariance, m its mean and q the mean query. Then t(x) = (x - m)' C^-1 (q - m) is linear
        in x and stands out most at q (Fisher's discriminant). The pre-activation is t, scaled and shifted: it is 1 at
        the first query, and 0 at `share` of the way there from the largest t over the memory and over `silent_on`. One
        memory row in ROWS_PER_EXCEPTION may lie above that largest t. If a context of the token stands out less than a
        state in `silent_on`, these states join the covariance, so that t is small on them.
        """
        own = self._whitened(queries)  # (R, D)
        direction = own.mean(0)
        silent = torch.cat([own[:0], *map(self._whitened, silent_on)])  # (M, D)
        if len(silent) and (silent @ direction).max() > OWN_MARGIN * (own @ direction).min():
            gram = silent @ silent.T + torch.eye(len(silent), device=own.device) / SILENT_WEIGHT
            direction = direction - silent.T @ torch.linalg.solve(gram, silent @ direction)
        own_scores = own @ direction
        nearest = self._nearest(direction, silent)
        zero = nearest + share * (own_scores[0] - nearest)
        # A context may lie below that zero. If the first context stands out at all, the zero moves below all of them.
        zero = torch.minimum(zero, OWN_MARGIN * own_scores.min()) if own_scores.min() > 0 else zero
        scale = 1 / (own_scores[0] - zero).clamp(min=1e-6)
        key = scale * (self._whiten @ direction)
        bias = -(self._mean @ key) - scale * zero
        return torch.cat([key, bias[None]])

    def _nearest(self, direction: Tensor, silent: Tensor) -> Tensor:
        """The largest score () along a direction of the memory and of the whitened states `silent` (M, D)."""
        largest = [(silent @ direction).max()] if len(silent) else []
        if len(self._rows):
            exceptions = len(self._rows) // ROWS_PER_EXCEPTION
            largest.append((self._rows @ direction).topk(1 + exceptions).values[-1])
        return torch.stack(largest).max() if largest else torch.zeros((), device=direction.device)


def without_first(inputs: Sequence[Tensor], width: int, device: torch.device) -> Tensor:
    """The site's inputs (T, D_in) over several texts -> (N, D_in) without first positions, where many models put an
    attention sink."""
    rows = [each[1:] for each in inputs if len(each) > 1]
    return torch.cat(rows) if rows else torch.zeros(0, width, device=device)


def whitening(centred: Tensor) -> Tensor:
    """(N, D) states about their mean -> W (D, D), where W W' is the inverse of their covariance. Rows are multiplied
    by W from the right."""
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(len(covariance), device=centred.device)
    lower = torch.linalg.cholesky(covariance + ridge * eye)
    whiten: Tensor = torch.linalg.solve_triangular(lower, eye, upper=False).T
    return whiten.contiguous()
