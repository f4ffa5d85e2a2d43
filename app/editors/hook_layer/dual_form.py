"""A hook layer (CoachHooK, Li et al. 2024, arXiv 2403.05330): the least-squares change of one down-projection, W - W_0.

In its dual form. Each edit asks for one pair: that the key k (D_in,) give W_0 k + e, with e (D_out,) its residual. With
C_0 = lambda E[x x'] over generic text, p = C_0^-1 k, and K, P, E the rows of n edits, the least-squares solution is

    W - W_0 = E' G^-1 P      with      G = I + K P'                    (n x n)

whatever the order of the edits or their batches, so that taking an edit out is solving again without its row: exact.
From n = D_in on the smaller of two equal systems is W - W_0 = E' P (I + K' P)^-1, which no longer grows with the edits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class WeightChange:
    """The change of the weight: `solved` P (n, D_in) and `spread` A (n, D_out), of which dW = A' P, or, where that is
    smaller, `weight` dW (D_out, D_in) itself: from n = D_in D_out / (D_in + D_out) on its size no longer grows."""

    solved: Tensor
    spread: Tensor
    weight: Tensor | None = None

    def change(self, x: Tensor) -> Tensor:
        """(..., D_in) fp32 -> (W - W_0) x (..., D_out)."""
        if self.weight is not None:
            return x @ self.weight.T
        return (x @ self.solved.T) @ self.spread

    @property
    def held_bytes(self) -> int:
        return self.weight.nbytes if self.weight is not None else self.solved.nbytes + self.spread.nbytes


def solve(keys: Tensor, solved: Tensor, residuals: Tensor) -> WeightChange:
    """K (n, D_in), P (n, D_in), E (n, D_out) -> the hook layer, in their precision. The system is solved in fp64."""
    count, d_in, d_out = len(keys), keys.shape[1], residuals.shape[1]
    eye = torch.eye(min(count, d_in), dtype=torch.float64, device=keys.device)
    k, p, e = keys.double(), solved.double(), residuals.double()
    if count >= d_in:
        weight = torch.linalg.solve(eye + p.T @ k, p.T @ e).T
        return WeightChange(solved[:0], residuals[:0], weight.to(residuals).contiguous())
    spread = torch.linalg.solve(eye + p @ k.T, e).to(residuals)
    if count * (d_in + d_out) < d_in * d_out:
        return WeightChange(solved, spread)
    return WeightChange(solved[:0], spread[:0], spread.T @ solved)


class Prior:
    """C_0 = lambda (E[x x'] + ridge), factored once; `solve` is C_0^-1."""

    RIDGE = 1e-3
    """Of the mean diagonal, added to every direction: generic text that is short beside the width leaves some empty."""

    def __init__(self, moment: Tensor, weight: float) -> None:
        ridge = self.RIDGE * moment.diagonal().mean().clamp(min=1e-12)
        eye = torch.eye(len(moment), device=moment.device, dtype=torch.float64)
        self._factor = torch.linalg.cholesky(weight * (moment.double() + ridge.double() * eye))

    def solve(self, keys: Tensor) -> Tensor:
        """(n, D_in) -> (n, D_in), in its precision."""
        return torch.cholesky_solve(keys.double().T, self._factor).T.to(keys)
