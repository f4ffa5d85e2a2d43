"""The place where edits act: a custom operator in the model's graph that adds rows to a module's output.

The operator reads two fixed buffers: an index for each position of the flat batch, and the rows that this step needs.
Both are filled before the forward pass, so that the graph is the same for every step, compiled or captured. Row 0 is
zero.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(eq=False, slots=True)
class SiteBuffers:
    """The buffers of one site: `index` (T,) and `rows` (1 + T, D), with T the most tokens of a step."""

    index: Tensor
    rows: Tensor
    used: int = 0
    """The number of positions that receive a row in this step."""

    def fill(self, places: list[int], rows: list[Tensor]) -> None:
        """Set the positions of the next step and the row (D,) that each receives."""
        if self.used:
            self.index.zero_()
        self.used = len(places)
        if places:
            count = len(places)
            self.rows[1 : 1 + count].copy_(torch.stack(rows))
            at = torch.tensor(places, device=self.index.device)
            self.index[at] = torch.arange(1, 1 + count, device=self.index.device)


SITES: dict[str, SiteBuffers] = {}
"""Module path -> buffers. A graph holds the path and not the buffers, as vLLM does for its attention layers."""


@torch.library.custom_op("errata::add_rows", mutates_args=("x",))
def add_rows(x: Tensor, site: str) -> None:
    """Add to each position of x (T, D) its row. On a CPU nothing runs in a step without edits; a captured CUDA graph
    cannot branch and adds zeros."""
    buffers = SITES[site]
    if buffers.used or x.is_cuda:
        x += buffers.rows[buffers.index[: x.shape[0]]]


@add_rows.register_fake
def _(x: Tensor, site: str) -> None:
    return None


def install(module: nn.Module, site: str, *, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    """Attach the operator to a module, before the model is compiled."""
    SITES[site] = SiteBuffers(
        index=torch.zeros(rows, dtype=torch.long, device=device),
        rows=torch.zeros(1 + rows, width, dtype=dtype, device=device),
    )

    def hook(_module: nn.Module, _args: object, output: Any) -> Any:
        # a linear map of vLLM's returns (output, bias)
        torch.ops.errata.add_rows(output[0] if isinstance(output, tuple) else output, site)
        return output

    module.register_forward_hook(hook)
