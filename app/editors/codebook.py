"""The keys of edits and their deferral radii in growing buffers, each row with its owner. Knows no prompts.

Nothing is moved when an edit goes: an edition names the rows it sees. Rows given back are used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.editors.rows import Rows

SAME = 1e-3
"""Of a key's norm."""


@dataclass(frozen=True, slots=True)
class _Row:
    edit_id: str
    radius: float
    target: tuple[int, ...]
    same: float
    """Keys no farther apart than this are of one prompt: what is left between them is rounding."""
    rivals: dict[int, float]
    """Rows of another target whose scope may meet this one's -> distance of the keys."""


class Codebook:
    """keys (K, D_in) fp32, whitened | radius, target and owner of each row."""

    def __init__(self, device: torch.device) -> None:
        self._keys = Rows(device, torch.float32)
        self._rows: dict[int, _Row] = {}
        self._row_of: dict[str, int] = {}
        self._device = device

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, edit_id: str, *, key: Tensor, radius: float, target: tuple[int, ...], rivals: Sequence[int]) -> int:
        """(D_in,) key -> the row. Distances to `rivals` are kept for the caps of both sides."""
        assert edit_id not in self._row_of, f"{edit_id} is loaded already"
        near = dict(zip(rivals, self.distances(key, rivals), strict=True)) if rivals else {}
        near = {row: d for row, d in near.items() if d < 2 * max(radius, self._rows[row].radius)}
        row = self._keys.put(key[None])
        self._rows[row] = _Row(edit_id, radius, target, SAME * key.norm().item(), near)
        self._row_of[edit_id] = row
        for rival, distance in near.items():
            self._rows[rival].rivals[row] = distance
        return row

    def remove(self, edit_id: str) -> int:
        row = self._row_of.pop(edit_id)
        gone = self._rows.pop(row)
        for rival in gone.rivals:
            del self._rows[rival].rivals[row]
        self._keys.give_back(row, 1)
        return row

    def radii(self, rows: Sequence[int]) -> dict[int, float]:
        """Rows that are live together, oldest first -> effective radii, capped at half the distance to each live rival.

        A pure function of the set: taking a row out gives its rivals back what it had taken from them. Of rivals with
        the same key only the newest is left, or both would be capped to nothing and the prompt answered by neither.
        """
        place = {row: at for at, row in enumerate(rows)}
        radii: dict[int, float] = {}
        for row, at in place.items():
            entry = self._rows[row]
            rivals = {rival: distance for rival, distance in entry.rivals.items() if rival in place}
            twins = {rival for rival, distance in rivals.items() if distance <= entry.same}
            if all(place[twin] < at for twin in twins):
                caps = [distance / 2 for rival, distance in rivals.items() if rival not in twins]
                radii[row] = min([entry.radius, *caps])
        return radii

    def distances(self, query: Tensor, rows: Sequence[int]) -> list[float]:
        """Exact L2 in fp32, by differences: the matrix-product form is off by up to .05 between equal vectors."""
        at = torch.tensor(list(rows), device=self._device)
        found: list[float] = (self._keys.data[at] - query).norm(dim=-1).tolist()
        return found

    def shortlist(self, query: Tensor, rows: Tensor, count: int) -> list[int]:
        """The nearest of `rows` (N,), roughly, by one matrix product."""
        if len(rows) <= count:
            return [int(row) for row in rows.tolist()]
        keys = self._keys.data[rows]
        rough = keys.pow(2).sum(-1) - 2 * keys @ query
        return [int(row) for row in rows[rough.topk(count, largest=False).indices].tolist()]

    def row(self, edit_id: str) -> int:
        return self._row_of[edit_id]

    def edit_id(self, row: int) -> str:
        return self._rows[row].edit_id

    def target(self, row: int) -> tuple[int, ...]:
        return self._rows[row].target
