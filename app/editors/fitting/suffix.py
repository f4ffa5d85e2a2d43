"""The end of a row of tokens, where an edit acts, and what of the prompt before it the layers above still read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

SHARED_AT_LEAST = 8
"""Tokens at the start of prompts from which on they may be computed once: a system prompt, a conversation's head."""
WORTH_A_PASS = 32
"""Tokens that must be saved by it: a pass of its own reads all weights."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The positions (R, J) of rows at which an edit acts: what enters the site's layer there (R, J, D), and keys and
    values (R, H, P + J + 1, D_head) of the site's layer and those above: of what stands before, by the base model, of
    the positions themselves, as the last pass over each left them, and of pads."""

    hidden: Tensor
    position: Tensor
    past: tuple[tuple[Tensor, Tensor] | None, ...]

    @staticmethod
    def joined(parts: Sequence["Tail"]) -> "Tail":
        """Rows of several, which were made together."""
        past = tuple(
            (torch.cat([each[0] for each in layer if each]), torch.cat([each[1] for each in layer if each]))
            if layer[0]
            else None
            for layer in zip(*(part.past for part in parts), strict=True)
        )
        return Tail(torch.cat([each.hidden for each in parts]), torch.cat([each.position for each in parts]), past)

    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, 1, C, P + J + 1) bool: the prompt before the first position, then causal."""
        count, device = self.position.shape[1], self.position.device
        before = next(each[0].shape[2] for each in self.past if each is not None) - count - 1
        prompt = torch.arange(before, device=device) < self.position[rows, :1]  # (N, P)
        own = torch.arange(count + 1, device=device) <= columns[..., None]  # (N, C, J + 1)
        return torch.cat([prompt[:, None].expand(-1, columns.shape[1], -1), own], -1)[:, None]

    def at(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the site's layer (N, C, D), and the positions (N, C); of pads anything."""
        real = columns.clamp(max=self.position.shape[1] - 1)
        return self.hidden[rows[:, None], real], self.position[rows[:, None], real]

    def cache(self, rows: Tensor, columns: Tensor) -> "Past":
        """For a pass over some columns of some rows, beside the others as they are."""
        return Past(
            [
                None if each is None else (each[0][rows.to(each[0].device)], each[1][rows.to(each[1].device)])
                for each in self.past
            ],
            columns - self.position.shape[1] - 1,
        )

    def keep(self, rows: Tensor, cache: "Past") -> None:
        """What a pass has made of its columns."""
        for mine, made in zip(self.past, cache.made, strict=True):
            if mine is not None and made is not None:
                for kept, new in zip(mine, made, strict=True):
                    kept[rows.to(kept.device)] = new.detach()


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that prompts share at their start, and the base model's keys and values of them (1, H, P, D_head)."""

    ids: tuple[int, ...] = ()
    past: tuple[tuple[Tensor, Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def passing(self, rows: int, count: int, device: torch.device) -> dict[str, Any]:
        """The mask and positions (rows, count) of tokens that follow; pads stand after all that is read."""
        position = len(self) + torch.arange(count, device=device)
        mask = torch.arange(len(self) + count, device=device) <= position[:, None]
        return {"attention_mask": mask.expand(rows, 1, -1, -1), "position_ids": position.expand(rows, -1)}


def shared_start(prompts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], int]:
    """What the first of the prompts start with together, and how many those are. Where that is too little it is
    nothing, of all up to the next two that share enough. Each prompt keeps a token of its own at its end."""
    shared, count = len(prompts[0]) - 1, 1
    for other in prompts[1:]:
        same = min(shared, _alike(prompts[0], other))
        if same < SHARED_AT_LEAST or (count > 1 and 2 * same < shared):
            break
        shared, count = same, count + 1
    if (count - 1) * shared >= WORTH_A_PASS:
        return tuple(prompts[0][:shared]), count
    alike = (at for at in range(count, len(prompts) - 1) if _alike(prompts[at], prompts[at + 1]) >= SHARED_AT_LEAST)
    return (), next(alike, len(prompts))


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both start with, the last of either not counted."""
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)


def alike_first(prompts: Sequence[Sequence[int]]) -> list[int]:
    """An order in which prompts that start alike stand together, the shorter first."""
    return sorted(range(len(prompts)), key=lambda at: (tuple(prompts[at][:SHARED_AT_LEAST]), len(prompts[at])))


class PastLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values that stand already, of each row or of all alike, and those of one pass: after them, or, with
    `places` (N, C), in their midst, counted from the end."""

    def __init__(self, past: tuple[Tensor, Tensor] | None, places: Tensor | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._past, self._places, self.is_initialized = past, places, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        if self._past is not None:
            new = zip(self._past, (key_states, value_states), strict=True)
            self.keys, self.values = (self._put(*each) for each in new)
        return self.keys, self.values

    def _put(self, past: Tensor, new: Tensor) -> Tensor:
        if self._places is None:
            return torch.cat([past.expand(len(new), -1, -1, -1), new], 2)
        places = (past.shape[2] + self._places.to(new.device))[:, None, :, None]
        return past.scatter(2, places.expand(-1, new.shape[1], -1, new.shape[3]), new)

    def get_seq_length(self) -> int:
        return 0  # positions are given with every pass

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0  # and so is the mask

    def get_max_length(self) -> int:
        return -1


class Past(Cache):
    """A layer each; None where nothing stands already."""

    def __init__(self, past: Sequence[tuple[Tensor, Tensor] | None], places: Tensor | None = None) -> None:
        super().__init__(layers=[PastLayer(each, places) for each in past])

    @property
    def made(self) -> list[tuple[Tensor, Tensor] | None]:
        """Keys and values after a pass; None of layers that were not run."""
        layers: list[Any] = self.layers
        return [None if each.keys is None else (each.keys, each.values) for each in layers]

    def cut(self, count: int, room: int) -> tuple[tuple[Tensor, Tensor] | None, ...]:
        """Those of the first `count` positions, with room for more."""
        return tuple(each and (_cut(each[0], count, room), _cut(each[1], count, room)) for each in self.made)


def _cut(states: Tensor, count: int, room: int) -> Tensor:
    """(B, H, T, D_head) -> (B, H, count + room, D_head)"""
    kept = states[:, :, :count]
    return F.pad(kept, (0, 0, 0, count - kept.shape[2] + room))
