"""The suffix of a row of tokens, where an edit acts, and the keys and values of the prompt before it.

The layers above a site read these again at every step of a fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

MIN_SHARED_TOKENS = 8
"""The shortest common start of prompts that is computed once, in tokens: a system prompt or a conversation's head."""
MIN_SAVED_TOKENS = 32
"""The number of tokens that a common start must save in all: its own pass reads all weights once more."""

KeyValues = tuple[Tensor, Tensor]
"""The keys and the values of one layer, (B, H, T, D_head) each."""


@dataclass(frozen=True, slots=True)
class Suffix:
    """The J positions of each of R rows at which an edit acts.

    `hidden` (R, J, D) enters the site's layer there, and `position` (R, J) are the positions. `key_values` has an entry
    for each layer, (R, H, P + J + 1, D_head), or None for a layer below the site: P positions of the prompt before, by
    the base model; the J positions themselves, as the last pass over each left them; and one pad.
    """

    hidden: Tensor
    position: Tensor
    key_values: tuple[KeyValues | None, ...]

    @staticmethod
    def joined(pieces: Sequence["Suffix"]) -> "Suffix":
        """Return the rows of several suffixes as one. They must come from one call of `FitView.suffixes`."""
        key_values = tuple(
            (torch.cat([each[0] for each in layer if each]), torch.cat([each[1] for each in layer if each]))
            if layer[0]
            else None
            for layer in zip(*(piece.key_values for piece in pieces), strict=True)
        )
        hidden = torch.cat([piece.hidden for piece in pieces])
        return Suffix(hidden, torch.cat([piece.position for piece in pieces]), key_values)

    def mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the attention mask (N, 1, C, P + J + 1) bool: the prompt before the first position, then causal."""
        count, device = self.position.shape[1], self.position.device
        before = next(each[0].shape[2] for each in self.key_values if each is not None) - count - 1
        prompt = torch.arange(before, device=device) < self.position[rows, :1]  # (N, P)
        own = torch.arange(count + 1, device=device) <= columns[..., None]  # (N, C, J + 1)
        return torch.cat([prompt[:, None].expand(-1, columns.shape[1], -1), own], -1)[:, None]

    def entering(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the site's layer (N, C, D) and their positions (N, C). For pads both are arbitrary."""
        real = columns.clamp(max=self.position.shape[1] - 1)
        return self.hidden[rows[:, None], real], self.position[rows[:, None], real]

    def cache(self, rows: Tensor, columns: Tensor) -> "SuffixCache":
        """Return a cache for a pass over some columns of some rows. The other columns stay as they are."""
        return SuffixCache(
            [
                None if each is None else (each[0][rows.to(each[0].device)], each[1][rows.to(each[1].device)])
                for each in self.key_values
            ],
            columns - self.position.shape[1] - 1,
        )

    def update(self, rows: Tensor, cache: "SuffixCache") -> None:
        """Take over the keys and values that a pass has computed for its columns."""
        for own, computed in zip(self.key_values, cache.computed, strict=True):
            if own is not None and computed is not None:
                for stored, new in zip(own, computed, strict=True):
                    stored[rows.to(stored.device)] = new.detach()


@dataclass(frozen=True, slots=True)
class Prefix:
    """The tokens that prompts share at their start, with the base model's keys and values (1, H, P, D_head), or None
    for a layer that did not run."""

    ids: tuple[int, ...] = ()
    key_values: tuple[KeyValues | None, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def inputs_after(self, rows: int, count: int, device: torch.device) -> dict[str, Any]:
        """Return the mask and the positions (rows, count) of the tokens that follow. Pads must be at the end."""
        position = len(self) + torch.arange(count, device=device)
        mask = torch.arange(len(self) + count, device=device) <= position[:, None]
        return {"attention_mask": mask.expand(rows, 1, -1, -1), "position_ids": position.expand(rows, -1)}


def shared_start(prompts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], int]:
    """Return the common start of the first prompts, and how many prompts have it.

    If the start would save too little, it is empty, and the count reaches up to the next two prompts that share enough.
    Each prompt keeps at least its last token.
    """
    shared, count = len(prompts[0]) - 1, 1
    for other in prompts[1:]:
        length = min(shared, _shared_length(prompts[0], other))
        if length < MIN_SHARED_TOKENS or (count > 1 and 2 * length < shared):
            break
        shared, count = length, count + 1
    if (count - 1) * shared >= MIN_SAVED_TOKENS:
        return tuple(prompts[0][:shared]), count
    next_pairs = (
        index
        for index in range(count, len(prompts) - 1)
        if _shared_length(prompts[index], prompts[index + 1]) >= MIN_SHARED_TOKENS
    )
    return (), next(next_pairs, len(prompts))


def _shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens with which both start, without the last token of either."""
    limit = min(len(one), len(other)) - 1
    return next((index for index in range(limit) if one[index] != other[index]), limit)


class SuffixCacheLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's stored keys and values, of each row or of one row for all, and those of a single pass.

    The pass's columns come after the stored ones or, given `places` (N, C), replace some of them. Places count from the
    end and are therefore negative.
    """

    def __init__(self, stored: KeyValues | None, places: Tensor | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stored, self._places, self.is_initialized = stored, places, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = key_states, value_states
        if self._stored is not None:
            new = zip(self._stored, (key_states, value_states), strict=True)
            self.keys, self.values = (self._merged(*each) for each in new)
        return self.keys, self.values

    def _merged(self, stored: Tensor, new: Tensor) -> Tensor:
        if self._places is None:
            return torch.cat([stored.expand(len(new), -1, -1, -1), new], 2)
        places = (stored.shape[2] + self._places.to(new.device))[:, None, :, None]
        return stored.scatter(2, places.expand(-1, new.shape[1], -1, new.shape[3]), new)

    def get_seq_length(self) -> int:
        return 0  # Every pass brings its positions.

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0  # Every pass brings its mask.

    def get_max_length(self) -> int:
        return -1


class SuffixCache(Cache):
    """A cache of one pass, with a layer for each of the model's. `stored` is None for a layer without stored states."""

    def __init__(self, stored: Sequence[KeyValues | None], places: Tensor | None = None) -> None:
        super().__init__(layers=[SuffixCacheLayer(each, places) for each in stored])

    @property
    def computed(self) -> list[KeyValues | None]:
        """Each layer's keys and values after a pass, or None for a layer that did not run."""
        layers: list[Any] = self.layers
        return [None if each.keys is None else (each.keys, each.values) for each in layers]

    def first_positions(self, count: int, room: int) -> tuple[KeyValues | None, ...]:
        """Return the keys and values of the first `count` positions, padded by `room` empty ones."""
        return tuple(
            each and (_first_positions(each[0], count, room), _first_positions(each[1], count, room))
            for each in self.computed
        )


def _first_positions(states: Tensor, count: int, room: int) -> Tensor:
    """(B, H, T, D_head) -> (B, H, count + room, D_head)."""
    first = states[:, :, :count]
    return F.pad(first, (0, 0, 0, count - first.shape[2] + room))
