"""The keys of edits and their deferral radii in growing buffers, each row with its owner. Knows no prompts.

Nothing is moved when an edit goes: an edition names the rows it sees. Rows given back are used again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from app.editors.rows import Rows

SAME = 1e-3
"""Of a key's norm."""
TO_A_RIVAL = 0.75
"""Of the way to a live rival's key: what lies in the radii of both is answered by the one in whose it lies deeper."""


@dataclass(frozen=True, slots=True)
class _Row:
    edit_id: str
    first: int
    count: int
    """Where its keys stand."""
    radius: float
    target: tuple[int, ...]
    same: float
    """Keys no farther apart than this are of one prompt: what is left between them is rounding."""
    rivals: dict[int, float]
    """Rows of another target whose scope may meet this one's -> least distance of their keys."""


class Codebook:
    """keys (K, D) fp32 | radius, target and owner of each row. A row is an edit, with one key or more."""

    def __init__(self, device: torch.device) -> None:
        self._keys = Rows(device, torch.float32)
        self._rows: dict[int, _Row] = {}
        self._row_of: dict[str, int] = {}
        self._next = 0
        self._device = device

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, edit_id: str, *, keys: Tensor, radius: float, target: tuple[int, ...], rivals: Sequence[int]) -> int:
        """(K, D) keys -> the row. Distances to `rivals` are kept for the caps of both sides."""
        assert edit_id not in self._row_of, f"{edit_id} is loaded already"
        near: dict[int, float] = {}
        for key in keys if rivals else ():
            for rival, distance in zip(rivals, self.distances(key, rivals), strict=True):
                if TO_A_RIVAL * distance < max(radius, self._rows[rival].radius):
                    near[rival] = min(distance, near.get(rival, distance))
        row, self._next = self._next, self._next + 1
        first = self._keys.put(keys)
        self._rows[row] = _Row(edit_id, first, len(keys), radius, target, SAME * keys[0].norm().item(), near)
        self._row_of[edit_id] = row
        for rival, distance in near.items():
            self._rows[rival].rivals[row] = distance
        return row

    def remove(self, edit_id: str) -> int:
        row = self._row_of.pop(edit_id)
        gone = self._rows.pop(row)
        for rival in gone.rivals:
            del self._rows[rival].rivals[row]
        self._keys.give_back(gone.first, gone.count)
        return row

    def radii(self, rows: Sequence[int]) -> dict[int, float]:
        """Rows that are live together, oldest first -> effective radii, capped short of the keys of each live rival.

        A pure function of the set: taking a row out gives its rivals back what it had taken from them. Of rivals with
        the same key only the newest is left, or both would be capped to nothing and the prompt answered by neither.
        """
        place = {row: at for at, row in enumerate(rows)}
        found = ((row, self._radius(row, place)) for row in rows)
        return {row: radius for row, radius in found if radius is not None}

    def _radius(self, row: int, place: Mapping[int, int]) -> float | None:
        """None for one that a newer twin has taken the place of."""
        entry = self._rows[row]
        rivals = {rival: distance for rival, distance in entry.rivals.items() if rival in place}
        twins = {rival for rival, distance in rivals.items() if distance <= entry.same}
        if any(place[twin] > place[row] for twin in twins):
            return None
        return min([entry.radius, *(TO_A_RIVAL * d for rival, d in rivals.items() if rival not in twins)])

    def radii_after(
        self, radii: Mapping[int, float], place: Mapping[int, int], added: Sequence[int], removed: Sequence[int]
    ) -> dict[int, float]:
        """The same from what they were before these rows came and went; `place` is of those that are live now."""
        changed = dict(radii)
        near = {rival for row in (*added, *removed) for rival in self._rows[row].rivals}
        for row in (*removed, *added, *near):
            radius = self._radius(row, place) if row in place else None
            if radius is None:
                changed.pop(row, None)
            else:
                changed[row] = radius
        return changed

    def distances(self, query: Tensor, rows: Sequence[int]) -> list[float]:
        """From the nearest of each row's keys. Exact L2 in fp32, by differences: the matrix-product form is off by up
        to .05 between equal vectors."""
        spans = [(self._rows[row].first, self._rows[row].count) for row in rows]
        at = torch.tensor([first + n for first, count in spans for n in range(count)], device=self._device)
        found: list[float] = (self._keys.data[at] - query).norm(dim=-1).tolist()
        ends = list(accumulate(count for _, count in spans))
        return [min(found[end - count : end]) for end, (_, count) in zip(ends, spans, strict=True)]

    def first_keys(self, rows: Sequence[int]) -> Tensor:
        """(N,) where the first key of each row stands."""
        return torch.tensor([self._rows[row].first for row in rows], dtype=torch.int64, device=self._device)

    def shortlist(self, query: Tensor, rows: Sequence[int], first_keys: Tensor, count: int) -> list[int]:
        """The nearest of `rows`, roughly, by one matrix product with the first key of each."""
        if len(rows) <= count:
            return list(rows)
        keys = self._keys.data[first_keys]
        rough = keys.pow(2).sum(-1) - 2 * keys @ query
        return [rows[at] for at in rough.topk(count, largest=False).indices.tolist()]

    def radius(self, row: int) -> float:
        """As learned, whatever rivals it has."""
        return self._rows[row].radius

    def row(self, edit_id: str) -> int:
        return self._row_of[edit_id]

    def edit_id(self, row: int) -> str:
        return self._rows[row].edit_id

    def target(self, row: int) -> tuple[int, ...]:
        return self._rows[row].target
