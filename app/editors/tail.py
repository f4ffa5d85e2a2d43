"""The end of a row of tokens, where an edit acts, and what of the prompt before it the layers above still read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(frozen=True, slots=True)
class Tail:
    """The positions (B, J) of rows at which an edit acts: what enters the site's layer there (B, J, D), and the base
    model's keys and values (B, H, P, D_head) of what stands before, of the site's layer and those above."""

    hidden: Tensor
    position: Tensor
    past: tuple[tuple[Tensor, Tensor] | None, ...]

    @staticmethod
    def joined(tails: Sequence["Tail"]) -> "Tail":
        """Rows of several, which were made together."""
        if len(tails) == 1:
            return tails[0]
        past = tuple(
            None
            if each[0] is None
            else (torch.cat([at[0] for at in each if at]), torch.cat([at[1] for at in each if at]))
            for each in zip(*(tail.past for tail in tails), strict=True)
        )
        return Tail(torch.cat([t.hidden for t in tails]), torch.cat([t.position for t in tails]), past)

    def only(self, rows: Tensor) -> "Tail":
        """Some of the rows, (B,) bool."""
        past = tuple(
            None if each is None else (each[0][rows.to(each[0].device)], each[1][rows.to(each[1].device)])
            for each in self.past
        )
        return Tail(self.hidden[rows], self.position[rows], past)

    @property
    def mask(self) -> Tensor:
        """(B, 1, J, P + J) bool: the prompt before the first position, then causal."""
        count, device = self.position.shape[1], self.position.device
        before = next(each[0].shape[2] for each in self.past if each is not None)
        prompt = torch.arange(before, device=device)[None] < self.position[:, :1]  # (B, P)
        own = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        mask = torch.cat([prompt[:, None].expand(-1, count, -1), own.expand(len(prompt), -1, -1)], -1)
        return mask[:, None]


class PastLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Gives what stands before, takes nothing in: the next step begins from the same."""

    def __init__(self, past: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._past, self.is_initialized = past, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self._past is not None, "the layers below the site are not run"
        return torch.cat([self._past[0], key_states], 2), torch.cat([self._past[1], value_states], 2)

    def get_seq_length(self) -> int:
        return 0  # positions are given with every pass

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0  # and so is the mask

    def get_max_length(self) -> int:
        return -1


class Past(Cache):
    def __init__(self, past: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        super().__init__(layers=[PastLayer(each) for each in past])
