"""A hook layer (CoachHooK, Li et al. 2024, arXiv 2403.05330): the least-squares change of one down-projection, W - W_0.

The solution is computed in its dual form. Each of n pairs asks that the key k (D_in,) give W_0 k + e, where e (D_out,)
is its residual. With C_0 = lambda E[x x'] over generic text, p = C_0^-1 k, and K, P, E the rows k, p, e of all pairs,
the least-squares solution is

    W - W_0 = E' G^-1 P      with      G = I + K P'                    (n x n)

It does not depend on the order of the edits or on their batches, so that solving again without a row takes its edit out
exactly. From n = D_in on, the equal system W - W_0 = E' P (I + K' P)^-1 is smaller and no longer grows with the edits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class WeightChange:
    """The change dW of a weight, in the smaller of two forms.

    The first form is dW = A' P with `solved` P (n, D_in) and `coefficients` A (n, D_out). The second, `weight` dW
    (D_out, D_in) itself, is smaller from n = D_in D_out / (D_in + D_out) on.
    """

    solved: Tensor
    coefficients: Tensor
    weight: Tensor | None = None

    def change(self, x: Tensor) -> Tensor:
        """Return (W - W_0) x: x (..., D_in) fp32 -> (..., D_out)."""
        if self.weight is not None:
            return x @ self.weight.T
        return (x @ self.solved.T) @ self.coefficients

    @property
    def held_bytes(self) -> int:
        """Memory of the form in use, in bytes."""
        return self.weight.nbytes if self.weight is not None else self.solved.nbytes + self.coefficients.nbytes


def solve(keys: Tensor, solved: Tensor, residuals: Tensor) -> WeightChange:
    """Return the hook layer for K (n, D_in), P (n, D_in), E (n, D_out), in their precision. The system is solved in
    fp64."""
    count, d_in, d_out = len(keys), keys.shape[1], residuals.shape[1]
    eye = torch.eye(min(count, d_in), dtype=torch.float64, device=keys.device)
    k, p, e = keys.double(), solved.double(), residuals.double()
    if count >= d_in:
        weight = torch.linalg.solve(eye + p.T @ k, p.T @ e).T
        return WeightChange(solved[:0], residuals[:0], weight.to(residuals).contiguous())
    coefficients = torch.linalg.solve(eye + p @ k.T, e).to(residuals)
    if count * (d_in + d_out) < d_in * d_out:
        return WeightChange(solved, coefficients)
    return WeightChange(solved[:0], coefficients[:0], coefficients.T @ solved)


class Prior:
    """C_0 = lambda (E[x x'] + ridge), factored once. `moment` (D_in, D_in) is E[x x'], and `weight` is lambda."""

    RIDGE = 1e-3
    """The share of the mean diagonal that is added to every direction. A text that is short beside the width leaves
    some directions empty."""

    def __init__(self, moment: Tensor, weight: float) -> None:
        ridge = self.RIDGE * moment.diagonal().mean().clamp(min=1e-12)
        eye = torch.eye(len(moment), device=moment.device, dtype=torch.float64)
        self._factor = torch.linalg.cholesky(weight * (moment.double() + ridge.double() * eye))

    def solve(self, keys: Tensor) -> Tensor:
        """Return C_0^-1 k for each key: (n, D_in) -> (n, D_in), in the precision of the keys."""
        return torch.cholesky_solve(keys.double().T, self._factor).T.to(keys)
