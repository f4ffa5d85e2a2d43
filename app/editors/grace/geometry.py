"""The geometry of GRACE's codebook as published (section 3): the keys, their deferral radii, and the edits they serve.

The geometry is a pure function of the ordered list of live edits. Taking an edit out means replaying the table over the
others, exactly and in milliseconds. This module knows no values and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

SAME_PROMPT_DISTANCE = 1e-3
"""A query this near to a key, as a share of the query's norm, is the same prompt asked again."""
SPLIT_GAP = 1e-5
"""The gap that a split leaves between the older of two radii and half of the distance, so that the two never touch."""


@dataclass(frozen=True, slots=True)
class KeyedEdit:
    """An edit as the geometry sees it: its query (D,) fp32 on the CPU and the token ids of its target."""

    edit_id: str
    query: Tensor
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CodebookEntry:
    """A key with its deferral radius.

    `members` are the edits that share the key, oldest first. The value of the newest one acts, because an edit that
    joins a key trains its value again in the paper.
    """

    radius: float
    target: tuple[int, ...]
    members: tuple[str, ...]


@dataclass(slots=True)
class Geometry:
    """keys (K, D) fp32, and one entry for each key."""

    keys: Tensor
    entries: list[CodebookEntry] = field(default_factory=list)

    def copy(self) -> "Geometry":
        return Geometry(self.keys, list(self.entries))

    def nearest(self, query: Tensor) -> tuple[float, int]:
        """Return the exact L2 distance to the nearest key, and that key's index.

        The distance comes from differences: the matrix-product form is off by up to .05 between equal vectors.
        """
        distances = (self.keys - query.to(self.keys)).norm(dim=-1)
        index = int(distances.argmin())
        return distances[index].item(), index

    def add_edit(self, edit: KeyedEdit, radius: float, moving_average: bool) -> None:
        """Apply one row of the table: ADD, ADD and SPLIT, EXPAND, or no change. `radius` is the paper's eps_init."""
        if not self.entries:
            self._add_key(edit, radius)
            return
        distance, index = self.nearest(edit.query)
        entry = self.entries[index]
        joined = replace(entry, members=(*entry.members, edit.edit_id))
        if distance <= SAME_PROMPT_DISTANCE * edit.query.norm().item() and entry.target != edit.target:
            # The same prompt with a new target: two keys would tie, and the older would win for ever.
            self.entries[index] = replace(entry, target=edit.target, members=(edit.edit_id,))
        elif distance > radius + entry.radius:
            self._add_key(edit, radius)
        elif entry.target != edit.target:
            # A split only narrows: it must not widen a radius that an earlier split has narrowed.
            self.entries[index] = replace(entry, radius=min(entry.radius, distance / 2 - SPLIT_GAP))
            self._add_key(edit, distance / 2)
        elif distance > entry.radius:
            self.entries[index] = replace(joined, radius=distance)
            if moving_average:
                self.keys = self.keys.clone()
                self.keys[index] = (self.keys[index] + edit.query.to(self.keys)) / 2
        else:
            self.entries[index] = joined

    def _add_key(self, edit: KeyedEdit, radius: float) -> None:
        self.keys = torch.cat([self.keys, edit.query[None].to(self.keys)])
        self.entries.append(CodebookEntry(radius, edit.target, (edit.edit_id,)))


class Replay:
    """Replays the table over lists of edits. A list that extends the last one continues from its geometry."""

    def __init__(self, width: int, device: torch.device, *, radius: float, moving_average: bool) -> None:
        self._empty = Geometry(torch.zeros(0, width, device=device))
        self._radius, self._moving_average = radius, moving_average
        self._last: tuple[tuple[str, ...], Geometry] = ((), self._empty)

    def __call__(self, edits: Sequence[KeyedEdit]) -> Geometry:
        ids = tuple(edit.edit_id for edit in edits)
        replayed, geometry = self._last
        if ids[: len(replayed)] != replayed:
            replayed, geometry = (), self._empty
        geometry = geometry.copy()
        for edit in edits[len(replayed) :]:
            geometry.add_edit(edit, self._radius, self._moving_average)
        self._last = (ids, geometry.copy())
        return geometry
