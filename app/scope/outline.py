"""Bounds on cosines from a quarter of the coordinates, so that most keys need not be read whole.

In a basis whose first directions hold most of the variance (a principal component analysis), a cosine is the product
of the first coordinates, the head, plus at most the product of the lengths of what is left, the tails.
"""

import torch
from torch import Tensor

HEAD = 96
"""The number of coordinates of a head. 96 of all-MiniLM-L6-v2's 384 hold three quarters of the variance."""
SAMPLE = 4096
"""The most vectors from which the basis is computed."""
ROUNDING = 1e-5
"""The widening of bounds: single precision rounds sums of a few hundred products by less."""
SQUARES_ROUNDING = 1e-6
"""The widening of tails' squared lengths: a difference of sums near 1, whose root would turn their rounding into 1e-3
for a vector that lies almost in the head."""


class Outline:
    """The heads (N, HEAD) fp32 and the tails' lengths (N,) of the vectors (N, E) from which it was built."""

    def __init__(self, vectors: Tensor, sample: Tensor) -> None:
        """`sample` (S, E) holds typical vectors, from which the basis is computed."""
        some = sample[:: max(1, len(sample) // SAMPLE)]
        _, directions = torch.linalg.eigh(some.T @ some)  # ascending
        self._basis = directions.flip(1)[:, :HEAD].contiguous()
        self._heads, self._tails = self._parts(vectors)

    @property
    def held_bytes(self) -> int:
        return self._heads.nbytes + self._tails.nbytes

    def set(self, places: list[int], vectors: Tensor) -> None:
        """Replace the vectors at these places by others (K, E)."""
        self._heads[places], self._tails[places] = self._parts(vectors)

    def at_most(self, queries: Tensor) -> Tensor:
        """Upper bounds (N,) on each vector's cosine with the nearest of the queries (W, E)."""
        heads, tails = self._parts(queries)
        bounds = (self._tails[:, None] * tails).addmm_(self._heads, heads.T)
        return bounds.amax(1).add_(ROUNDING)

    def _parts(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        heads = vectors @ self._basis
        left = vectors.square().sum(1) - heads.square().sum(1)
        return heads, left.clamp(min=0).add(SQUARES_ROUNDING).sqrt()
