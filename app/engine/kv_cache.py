"""Keys and values, one slot per sequence; rows of any lengths share a forward pass. Knows no sequences.

On a CPU, slots are address space: memory is committed page by page as tokens are written, and returned by `release`.
Every sequence may thus use the model's whole context and costs only what it holds. On other devices slots are allocated
at once.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from app.domain.errors import UnsupportedModel

SPARE = 512
"""Number of tokens whose memory a slot may keep beyond what its sequence holds."""


class CachePlacement:
    """The placement of the next forward pass: the slots (B,) and columns (B, T) that it writes, and the width W that it
    reads."""

    def __init__(self) -> None:
        self.slots = torch.zeros(0, dtype=torch.long)
        self.columns = torch.zeros(0, 0, dtype=torch.long)
        self.width = self.first = 0
        self.dense = False
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Slots and columns on a layer's device; layers may be on different devices."""
        if device == self.slots.device:
            return self.slots, self.columns
        if device not in self._elsewhere:
            self._elsewhere[device] = self.slots.to(device), self.columns.to(device)
        return self._elsewhere[device]

    def bind(self, slots: list[int], columns: Tensor, width: int) -> None:
        self.slots = torch.tensor(slots, device=columns.device)
        self.columns, self.width = columns, width
        self._elsewhere.clear()
        # adjacent slots are a view; others are gathered, which copies them
        self.first = slots[0]
        self.dense = slots == list(range(self.first, self.first + len(slots)))

    def fix(self, slots: Tensor, columns: Tensor, width: int) -> None:
        """Binds the first slots to tensors whose contents may change later without another call."""
        self.slots, self.columns, self.width = slots, columns, width
        self._elsewhere.clear()
        self.first, self.dense = 0, True


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer. states: (S, L + 1, 2, H, D_head), with keys and values of a token adjacent.

    The last column receives what pads write; masks never let it be read.
    """

    states: Tensor

    def __init__(self, place: CachePlacement, slots: int, max_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place, self._slots, self._max_tokens = place, slots, max_tokens
        self._pages: mmap.mmap | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        assert key_states.shape == value_states.shape, "keys and values of one size"
        self.reserve(key_states.shape[1], key_states.shape[3], key_states.dtype, key_states.device)

    def reserve(self, heads: int, d_head: int, dtype: torch.dtype, device: torch.device) -> None:
        """Reserves address space, or memory on a GPU. Raises UnsupportedModel if the system refuses."""
        shape = (self._slots, self._max_tokens + 1, 2, heads, d_head)
        if device.type == "cpu" and device == torch.empty(0).device:
            self._pages, flat = _address_space(torch.Size(shape).numel(), dtype)
            self.states = flat.view(shape)
        else:
            self.states = torch.zeros(shape, dtype=dtype, device=device)
        self.keys, self.values = self.states[:, :, 0].transpose(1, 2), self.states[:, :, 1].transpose(1, 2)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values, (B, H, T, D_head) each -> those that the rows may attend to, (B, H, W, D_head) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        at = self._place
        slots, columns = at.on(self.states.device)
        written = torch.stack([key_states.transpose(1, 2), value_states.transpose(1, 2)], 2)  # (B, T, 2, H, D_head)
        self.states[slots[:, None], columns] = written
        rows = slice(at.first, at.first + len(slots)) if at.dense else slots
        read = self.states[:, : at.width][rows]
        return read[:, :, 0].transpose(1, 2), read[:, :, 1].transpose(1, 2)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a sequence's leading tokens to another slot."""
        if self.is_initialized:
            self.states[target, :tokens] = self.states[source, :tokens]

    def release(self, slot: int, first: int, last: int) -> None:
        """Returns the memory of a slot's tokens [first, last); their contents are lost."""
        if self._pages is None:
            return
        a_token = self.states[0, 0].numel() * self.states.itemsize
        start, end = (a_token * (slot * (self._max_tokens + 1) + at) for at in (first, last))
        # whole pages only: partial ones hold tokens that stay, of this slot or the next
        start, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            self._pages.madvise(mmap.MADV_DONTNEED, start, end - start)

    def get_seq_length(self) -> int:
        return 0  # positions are passed explicitly

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._place.width, 0

    def get_max_length(self) -> int:
        return self._max_tokens


class SlotCache(Cache):
    """The cache that the model is called with; `place.bind` precedes every forward pass."""

    def __init__(self, layers: int, slots: int, max_tokens: int) -> None:
        self.place = CachePlacement()
        self.slots, self.max_tokens = slots, max_tokens
        self._slot_layers = [SlotLayer(self.place, slots, max_tokens) for _ in range(layers)]
        self._written = [0] * slots  # tokens of each slot that occupy memory
        super().__init__(layers=list(self._slot_layers))

    def layers_states(self, heads: int, d_head: int, dtype: torch.dtype) -> Iterator[Tensor]:
        """Each layer's states, for a pass that reads and writes them directly."""
        for layer in self._slot_layers:
            if not layer.is_initialized:
                layer.reserve(heads, d_head, dtype, torch.device("cpu"))
            yield layer.states

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a sequence's leading tokens to another slot in every layer."""
        for layer in self._slot_layers:
            layer.move(source, target, tokens)
        self._written[target] = max(self._written[target], tokens)

    def write(self, slots: Sequence[int], ends: Sequence[int]) -> None:
        """Records how many tokens the next pass leaves in each slot."""
        for slot, end in zip(slots, ends, strict=True):
            self._written[slot] = max(self._written[slot], end)

    def release(self, held: Mapping[int, int], spare: int = SPARE) -> None:
        """Returns the memory of tokens that no sequence holds. `held`: slot -> tokens of its running sequence. A slot
        may keep `spare` more, which the next sequence writes to without committing memory again."""
        for slot, written in enumerate(self._written):
            kept = held.get(slot, 0)
            if written > kept + spare:
                for layer in self._slot_layers:
                    layer.release(slot, kept, written)
                self._written[slot] = kept


def _address_space(count: int, dtype: torch.dtype) -> tuple[mmap.mmap, Tensor]:
    """`count` zeros whose memory is committed when they are written."""
    size = -(-count * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    except (OSError, OverflowError) as error:
        raise UnsupportedModel(
            f"The system refuses {size / 2**30:,.1f} GiB of address space for the keys and values of one layer "
            f"({error}): lower ERRATA_SLOTS or ERRATA_MAX_SEQUENCE_TOKENS, or allow overcommitting "
            "(vm.overcommit_memory=0)."
        ) from error
    with suppress(AttributeError, OSError):  # otherwise each first token would commit a huge page
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return pages, torch.frombuffer(pages, dtype=dtype, count=count)
