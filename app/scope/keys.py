"""The keys of all edits in one matrix: which are nearest to a question, exactly, among those that it may see."""

from collections.abc import Sequence

import torch
from torch import Tensor

SPARE = 1024


class Keys:
    """vectors (N, E) fp32 of length 1, `owner` (N,) their edit's row, -1 where a place is free."""

    def __init__(self, width: int) -> None:
        self._vectors = torch.zeros(0, width)
        self._owner = torch.zeros(0, dtype=torch.long)
        self._places: dict[int, list[int]] = {}
        self._free: list[int] = []

    @property
    def held_bytes(self) -> int:
        return self._vectors.nbytes + self._owner.nbytes

    def add(self, row: int, vectors: Tensor) -> None:
        """(K, E) keys of an edit."""
        while len(self._free) < len(vectors):
            size, more = len(self._owner), max(SPARE, len(self._owner) // 2)
            self._vectors = torch.cat([self._vectors, self._vectors.new_zeros(more, self._vectors.shape[1])])
            self._owner = torch.cat([self._owner, self._owner.new_full((more,), -1)])
            self._free.extend(range(size + more - 1, size - 1, -1))
        places = [self._free.pop() for _ in range(len(vectors))]
        self._vectors[places], self._owner[places] = vectors, row
        self._places[row] = places

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

    def similarity(self, queries: Tensor, places: Tensor) -> Tensor:
        """(W, E), (M,) -> (M,): each key's cosine with the nearest of the queries."""
        if 4 * len(places) < len(self._owner):
            return (self._vectors[places] @ queries.T).amax(1)
        return (self._vectors @ queries.T).amax(1)[places]
