"""One place a sequence for its keys and values; rows of any lengths share a forward pass. Knows no sequences."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Place:
    """Where the next forward pass writes and how far it reads: slots (B,), columns (B, T), width W."""

    def __init__(self) -> None:
        self.slots = torch.zeros(0, dtype=torch.long)
        self.columns = torch.zeros(0, 0, dtype=torch.long)
        self.width = self.first = 0
        self.dense = False
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Slots and columns on a layer's device, if not all layers are on one."""
        if device == self.slots.device:
            return self.slots, self.columns
        if device not in self._elsewhere:
            self._elsewhere[device] = self.slots.to(device), self.columns.to(device)
        return self._elsewhere[device]

    def bind(self, slots: list[int], columns: Tensor, width: int) -> None:
        self.slots = torch.tensor(slots, device=columns.device)
        self.columns, self.width = columns, width
        self._elsewhere.clear()
        # slots side by side are a view; any others are gathered, which copies what they hold
        self.first = slots[0]
        self.dense = slots == list(range(self.first, self.first + len(slots)))

    def fix(self, slots: Tensor, columns: Tensor, width: int) -> None:
        """The first slots, in tensors whose contents may change afterwards without another call."""
        self.slots, self.columns, self.width = slots, columns, width
        self._elsewhere.clear()
        self.first, self.dense = 0, True


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """keys, values: (S, H, L + 1, D_head). The last column takes what pads write, and no mask lets it be read."""

    def __init__(self, place: Place, slots: int, max_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place, self._slots, self._max_tokens = place, slots, max_tokens

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def room(states: Tensor) -> Tensor:
            return states.new_zeros(self._slots, states.shape[1], self._max_tokens + 1, states.shape[3])

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """(B, H, T, D_head) each -> what these rows may attend to, (B, H, W, D_head) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values, at = self.keys, self.values, self._place
        assert keys is not None
        assert values is not None
        slots, columns = at.on(keys.device)
        keys[slots[:, None], :, columns] = key_states.transpose(1, 2)
        values[slots[:, None], :, columns] = value_states.transpose(1, 2)
        if at.dense:
            rows = slice(at.first, at.first + len(slots))
            return keys[rows, :, : at.width], values[rows, :, : at.width]
        return keys[:, :, : at.width][slots], values[:, :, : at.width][slots]

    def move(self, source: int, target: int, tokens: int) -> None:
        """A sequence's leading tokens to another slot."""
        if self.is_initialized:
            assert self.keys is not None
            assert self.values is not None
            for states in (self.keys, self.values):
                states[target, :, :tokens] = states[source, :, :tokens]

    def get_seq_length(self) -> int:
        return 0  # positions are given with every pass

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._place.width, 0

    def get_max_length(self) -> int:
        return self._max_tokens


class SlotCache(Cache):
    """The cache that the model is called with; `place.bind` comes before every forward pass."""

    def __init__(self, layers: int, slots: int, max_tokens: int) -> None:
        self.place = Place()
        self.slots, self.max_tokens = slots, max_tokens
        self._slot_layers = [SlotLayer(self.place, slots, max_tokens) for _ in range(layers)]
        super().__init__(layers=list(self._slot_layers))

    def move(self, source: int, target: int, tokens: int) -> None:
        """A sequence's leading tokens to another slot, in every layer."""
        for layer in self._slot_layers:
            layer.move(source, target, tokens)
