"""A growing buffer for the vectors that edits own. Knows neither editors nor edits."""

import torch
from torch import Tensor


class RowBuffer:
    """Rows of one width on one device. A row never moves to another index.

    The capacity doubles when the buffer is full. A released block is reused by a block of the same length.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.data = torch.zeros(0, 0, device=device, dtype=dtype)
        self._used = 0
        self._released: dict[int, list[int]] = {}  # block length -> first rows of the blocks

    def add(self, rows: Tensor) -> int:
        """Copy N adjacent rows (N, D) into the buffer and return the index of the first."""
        count, width = rows.shape
        if self._released.get(count):
            first = self._released[count].pop()
        else:
            first = self._used
            self._used += count
            if self._used > len(self.data):
                grown = self.data.new_zeros(max(64, 2 * self._used), width)
                grown[: len(self.data)] = self.data if len(self.data) else 0
                self.data = grown
        self.data[first : first + count] = rows.to(self.data)
        return first

    @property
    def held_bytes(self) -> int:
        """Memory of the whole capacity, in bytes."""
        return self.data.nbytes

    def release(self, first: int, count: int) -> None:
        """Free the block of `count` rows that begins at `first`."""
        self._released.setdefault(count, []).append(first)
