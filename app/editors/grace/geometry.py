"""The codebook's geometry as published (GRACE, section 3): which keys there are, how wide, and whose.

A pure function of the ordered list of live edits: taking one out is replaying the table over the others, in
milliseconds and exactly. Knows no values and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

SAME = 1e-3
"""Of a query's norm. No farther from a key than this it is the same prompt asked again."""
GAP = 1e-5
"""By which a split leaves the older of two radii below half of the distance."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an edit brings to the geometry: its query (D,) fp32 on the CPU and its target's tokens."""

    edit_id: str
    query: Tensor
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its deferral radius. `members` are the edits that share it, oldest first; the newest one's value acts:
    as published, an edit that joins a key trains its value again."""

    radius: float
    target: tuple[int, ...]
    members: tuple[str, ...]


@dataclass(slots=True)
class Geometry:
    """keys (K, D) fp32 and their entries."""

    keys: Tensor
    entries: list[Entry] = field(default_factory=list)

    def copy(self) -> "Geometry":
        return Geometry(self.keys, list(self.entries))

    def nearest(self, query: Tensor) -> tuple[float, int]:
        """Exact L2 by differences: the matrix-product form is off by up to .05 between equal vectors."""
        distances = (self.keys - query.to(self.keys)).norm(dim=-1)
        at = int(distances.argmin())
        return distances[at].item(), at

    def take_in(self, edit: Recorded, radius: float, moving_average: bool) -> None:
        """One row of the table: ADD, ADD and SPLIT, EXPAND, or no change. `radius` is the paper's eps_init."""
        if not self.entries:
            self._add(edit, radius)
            return
        distance, at = self.nearest(edit.query)
        entry = self.entries[at]
        joined = replace(entry, members=(*entry.members, edit.edit_id))
        if distance <= SAME * edit.query.norm().item() and entry.target != edit.target:
            # the same prompt with a new target: as two keys they would tie, and the older would win for ever
            self.entries[at] = replace(entry, target=edit.target, members=(edit.edit_id,))
        elif distance > radius + entry.radius:
            self._add(edit, radius)
        elif entry.target != edit.target:
            # a split narrows; it never widens what an earlier one has narrowed
            self.entries[at] = replace(entry, radius=min(entry.radius, distance / 2 - GAP))
            self._add(edit, distance / 2)
        elif distance > entry.radius:
            self.entries[at] = replace(joined, radius=distance)
            if moving_average:
                self.keys = self.keys.clone()
                self.keys[at] = (self.keys[at] + edit.query.to(self.keys)) / 2
        else:
            self.entries[at] = joined

    def _add(self, edit: Recorded, radius: float) -> None:
        self.keys = torch.cat([self.keys, edit.query[None].to(self.keys)])
        self.entries.append(Entry(radius, edit.target, (edit.edit_id,)))


class Replay:
    """Replays the table over lists of edits; a list that only goes on from the last one goes on from its geometry."""

    def __init__(self, width: int, device: torch.device, *, radius: float, moving_average: bool) -> None:
        self._empty = Geometry(torch.zeros(0, width, device=device))
        self._radius, self._moving_average = radius, moving_average
        self._last: tuple[tuple[str, ...], Geometry] = ((), self._empty)

    def __call__(self, edits: Sequence[Recorded]) -> Geometry:
        ids = tuple(edit.edit_id for edit in edits)
        known, geometry = self._last
        if ids[: len(known)] != known:
            known, geometry = (), self._empty
        geometry = geometry.copy()
        for edit in edits[len(known) :]:
            geometry.take_in(edit, self._radius, self._moving_average)
        self._last = (ids, geometry.copy())
        return geometry
