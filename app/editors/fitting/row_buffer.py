"""Growing memory for what edits own: rows of one width. Knows neither editors nor edits."""

import torch
from torch import Tensor


class Rows:
    """Rows of one width on a device; none is ever moved.

    Capacity doubles; blocks given back are taken again by blocks of their length.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.data = torch.zeros(0, 0, device=device, dtype=dtype)
        self._used = 0
        self._free: dict[int, list[int]] = {}

    def put(self, rows: Tensor) -> int:
        """(N, D) -> the first of N rows side by side that now hold it."""
        count, width = rows.shape
        if self._free.get(count):
            first = self._free[count].pop()
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
        return self.data.nbytes

    def give_back(self, first: int, count: int) -> None:
        self._free.setdefault(count, []).append(first)
