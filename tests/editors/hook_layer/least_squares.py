"""The least squares that hook layers stand for, in fp64, as the papers write them."""

import torch
from torch import Tensor


class Case:
    """W_0 (D_out, D_in), C_0 = 7 E[x x'], and seeds for pairs."""

    def __init__(self, d_in: int, d_out: int, edits: int) -> None:
        self.generator = torch.Generator().manual_seed(0)
        text = self.draw(400, d_in)
        self.prior = 7.0 * text.T @ text / 400
        self.weight = self.draw(d_out, d_in)
        self.d_in, self.d_out, self.edits = d_in, d_out, edits

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)


def recursive(case: Case, batches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Section 3.3 step by step: C <- C + K K', W <- W + R K' C^-1. -> the weight, and all keys and implied values."""
    weight, accumulated = case.weight.clone(), case.prior.clone()
    keys, values = [], []
    for count in [case.edits // batches] * batches:
        key, residual = case.draw(case.d_in, count) * 2, case.draw(case.d_out, count)
        keys.append(key)
        values.append(weight @ key + residual)
        accumulated = accumulated + key @ key.T
        weight = weight + residual @ torch.linalg.solve(accumulated, key).T
    return weight, torch.cat(keys, 1).T, torch.cat(values, 1).T


def whole(case: Case, keys: Tensor, values: Tensor) -> Tensor:
    """(W_0 C_0 + sum v k') (C_0 + sum k k')^-1, in one go."""
    return (case.weight @ case.prior + values.T @ keys) @ torch.linalg.inv(case.prior + keys.T @ keys)
