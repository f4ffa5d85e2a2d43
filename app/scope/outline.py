"""Bounds on cosines from a quarter of the coordinates, so that most keys need not be read whole.

In a basis whose first directions hold most of the variance (a principal component analysis), a cosine is the product
of the first coordinates, the head, plus at most the product of the lengths of what is left, the tails.
"""

import torch
from torch import Tensor

HEAD = 95
"""The number of coordinates of a head: 95 of all-MiniLM-L6-v2's 384 hold three quarters of the variance. With the
tail's length a row has a multiple of 32 numbers, which is read fastest."""
SAMPLE = 4096
"""The most vectors from which the basis is computed."""
ROUNDING = 1e-5
"""The widening of bounds: single precision rounds sums of a few hundred products by less."""
SQUARES_ROUNDING = 1e-6
"""The widening of tails' squared lengths: a difference of sums near 1, whose root would turn their rounding into 1e-3
for a vector that lies almost in the head."""


def best_products(vectors: Tensor, queries: Tensor) -> Tensor:
    """The largest inner product (N,) of each of the vectors (N, E) with one of the queries (W, E)."""
    if len(queries) == 1:  # a product with one vector runs on one thread, which takes three times as long as with two
        return (vectors @ queries.repeat(2, 1).T)[:, 0]
    return (vectors @ queries.T).amax(1)


class Outline:
    """The heads of the vectors (N, E) from which it was built, with the lengths of their tails: (N, HEAD + 1) fp32."""

    def __init__(self, vectors: Tensor, sample: Tensor) -> None:
        """`sample` (S, E) holds typical vectors, from which the basis is computed."""
        some = sample[:: max(1, len(sample) // SAMPLE)]
        _, directions = torch.linalg.eigh(some.T @ some)  # ascending
        self._basis = directions.flip(1)[:, :HEAD].contiguous()
        self._parts = self._divided(vectors)

    @property
    def held_bytes(self) -> int:
        return self._parts.nbytes

    def set(self, places: list[int], vectors: Tensor) -> None:
        """Replace the vectors at these places by others (K, E)."""
        self._parts[places] = self._divided(vectors)

    def at_most(self, queries: Tensor) -> Tensor:
        """Upper bounds (N,) on each vector's cosine with the nearest of the queries (W, E)."""
        return best_products(self._parts, self._divided(queries)).add_(ROUNDING)

    def _divided(self, vectors: Tensor) -> Tensor:
        heads = vectors @ self._basis
        left = vectors.square().sum(1) - heads.square().sum(1)
        tails = left.clamp(min=0).add(SQUARES_ROUNDING).sqrt()
        return torch.cat([heads, tails[:, None]], 1)
