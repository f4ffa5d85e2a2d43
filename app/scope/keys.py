"""The keys of all edits in one matrix: which are nearest to a question, exactly, among those that it may see.

A matrix product over all keys is limited by how fast memory can be read. Where there are many keys, an outline of them
is read first, which rules out most; the others are compared whole, so that the result is the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.scope.outline import Outline

SPARE = 1024
MANY = 16384
"""Places from which on an outline is kept: fewer keys are compared whole in half a millisecond."""
BLOCK = 64
"""Bounds that one maximum is taken of, to find a few high ones without sorting all."""
SHARE = 0.2
"""Share of the keys that may be left by the outline; beyond it, one product over all of them is faster."""


class KeyIndex:
    """vectors (N, E) fp32 of length 1, `owner` (N,) their edit's row, -1 where a place is free."""

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
        """(K, E) keys of an edit."""
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
        """Places of these edits' keys, ascending."""
        return torch.tensor(sorted(place for row in rows for place in self._places[row]), dtype=torch.long)

    def place(self, place: int) -> tuple[int, int]:
        """(row, which of its keys); a row of -1 for a place that is free."""
        row = int(self._owner[place])
        return row, self._places[row].index(place) if row >= 0 else 0

    def row_places(self, row: int) -> list[int]:
        return self._places[row]

    def cosines(self, queries: Tensor, places: Tensor) -> Tensor:
        """(W, E), (M,) -> (M,): each key's cosine with the nearest of the queries."""
        if 4 * len(places) < len(self._owner):
            return (self._vectors[places] @ queries.T).amax(1)
        return (self._vectors @ queries.T).amax(1)[places]

    def nearest(self, queries: Tensor, places: Tensor, most: int, floor: float) -> tuple[Tensor, Tensor]:
        """(W, E), (M,) -> places and cosines of the keys that lie nearest to one of the queries, the nearest first: at
        most so many, none whose cosine is not above `floor`."""
        left = self.candidates(queries, places, most, floor)
        cosines = self.cosines(queries, left)
        found = cosines.topk(min(most, len(left)))
        near = found.values > floor
        return left[found.indices[near]], found.values[near]

    def candidates(self, queries: Tensor, places: Tensor, most: int, floor: float) -> Tensor:
        """The places that the outline does not rule out."""
        if self._outline is None or 4 * len(places) < len(self._owner):
            return places
        bounds = self._outline.at_most(queries)[places]
        whole = bounds[: len(bounds) // BLOCK * BLOCK].view(-1, BLOCK).max(1)
        high = whole.values.topk(min(most, len(whole.values))).indices
        some = self.cosines(queries, places[high * BLOCK + whole.indices[high]])
        # as many keys as are wanted lie at least so near; a key whose bound is lower is none of the nearest
        least = max(floor, float(some.amin())) if len(some) == most else floor
        left = bounds >= least
        return places[left] if int(left.sum()) < SHARE * len(places) else places

    def _grow(self) -> None:
        size, more = len(self._owner), max(SPARE, len(self._owner) // 2)
        self._vectors = torch.cat([self._vectors, self._vectors.new_zeros(more, self._vectors.shape[1])])
        self._owner = torch.cat([self._owner, self._owner.new_full((more,), -1)])
        self._free.extend(range(size + more - 1, size - 1, -1))
        if len(self._owner) >= MANY:
            self._outline = Outline(self._vectors, self._vectors[self._owner >= 0])
