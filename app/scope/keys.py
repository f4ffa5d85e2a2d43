"""The keys of all edits in one matrix, and an exact search for the nearest ones among those that an edition may see.

A matrix product over all keys is limited by how fast memory can be read. Where there are many keys, an outline of them
is read first, which rules out most; the others are compared whole, so that the result is the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.scope.outline import Outline, best_products

SPARE = 1024
MANY = 16384
"""The number of places from which an outline pays off. Fewer keys are compared in full within half a millisecond."""
BLOCK = 64
"""The number of bounds per block. The maxima of blocks yield a few high bounds without sorting all."""
SHARE = 0.2
"""The share of keys up to which the outline is worthwhile; beyond it, one product over all keys is faster."""


class KeyIndex:
    """The vectors (N, E) fp32 of length 1, and `owner` (N,), the row of each key's edit or -1 for a free place."""

    def __init__(self, width: int) -> None:
        self._vectors = torch.zeros(0, width)
        self._owner = torch.zeros(0, dtype=torch.long)
        self._places: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._outline: Outline | None = None

    @property
    def held_bytes(self) -> int:
        outline = self._outline.held_bytes if self._outline is not None else 0
        return self._vectors.nbytes + self._owner.nbytes + outline

    def add(self, row: int, vectors: Tensor) -> None:
        """Add an edit's keys (K, E)."""
        while len(self._free) < len(vectors):
            self._grow()
        places = [self._free.pop() for _ in range(len(vectors))]
        self._vectors[places], self._owner[places] = vectors, row
        self._places[row] = places
        if self._outline is not None:
            self._outline.set(places, vectors)

    def remove(self, row: int) -> None:
        places = self._places.pop(row)
        self._owner[places] = -1
        self._free.extend(reversed(places))

    def of(self, rows: Sequence[int]) -> Tensor:
        """The places of these edits' keys, ascending. Builds the outline once they are a large part of many keys."""
        places = [place for row in rows for place in self._places[row]]
        if self._outline is None and len(self._owner) >= MANY and self._is_large_part(len(places)):
            self._outline = self._outlined()
        return torch.tensor(places, dtype=torch.long).sort().values

    def place(self, place: int) -> tuple[int, int]:
        """The (row, index of its key) of a place; a free place has row -1."""
        row = int(self._owner[place])
        return row, self._places[row].index(place) if row >= 0 else 0

    def cosines(self, queries: Tensor, places: Tensor) -> Tensor:
        """The cosine (M,) of each of the keys at `places` (M,) with the nearest of the queries (W, E)."""
        if not self._is_large_part(len(places)):
            return best_products(self._vectors[places], queries)
        return best_products(self._vectors, queries)[places]

    def nearest(self, queries: Tensor, places: Tensor, most: int, floor: float) -> tuple[Tensor, Tensor]:
        """The places and cosines of the keys nearest to one of the queries (W, E), among `places` (M,): the nearest
        first, at most `most`, and only cosines above `floor`."""
        left = self.candidates(queries, places, most, floor)
        cosines = self.cosines(queries, left)
        top = cosines.topk(min(most, len(left)))
        near = top.values > floor
        return left[top.indices[near]], top.values[near]

    def candidates(self, queries: Tensor, places: Tensor, most: int, floor: float) -> Tensor:
        """The places that the outline does not rule out."""
        if self._outline is None or not self._is_large_part(len(places)):
            return places
        bounds = self._outline.at_most(queries)[places]
        whole = bounds[: len(bounds) // BLOCK * BLOCK].view(-1, BLOCK).max(1)
        high = whole.values.topk(min(most, len(whole.values))).indices
        some = self.cosines(queries, places[high * BLOCK + whole.indices[high]])
        # `most` keys are at least this near, so that a key with a lower bound is not among the nearest
        least = max(floor, float(some.amin())) if len(some) == most else floor
        left = bounds >= least
        return places[left] if int(left.sum()) < SHARE * len(places) else places

    def _grow(self) -> None:
        size, more = len(self._owner), max(SPARE, len(self._owner) // 2)
        self._vectors = torch.cat([self._vectors, self._vectors.new_zeros(more, self._vectors.shape[1])])
        self._owner = torch.cat([self._owner, self._owner.new_full((more,), -1)])
        self._free.extend(range(size + more - 1, size - 1, -1))
        if self._outline is not None:
            self._outline = self._outlined()

    def _is_large_part(self, count: int) -> bool:
        """True if `count` keys are compared faster in one product over all, or through an outline of all."""
        return 4 * count >= len(self._owner)

    def _outlined(self) -> Outline:
        return Outline(self._vectors, self._vectors[self._owner >= 0])
