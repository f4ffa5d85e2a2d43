"""Pages: mixtures that several edits share, each in memory once; and their LoRAs that act on the rows of a batch.

The first edit of a batch carries the tensors and the others name them. A page stays in memory while any of its edits is
loaded. This module knows no scopes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import RowView, Site
from app.editors.lora_mixture.mixture import Mixture


@dataclass(slots=True)
class _Page:
    mixture: Mixture
    loaded_edits: int = 0


class Pages:
    """All pages of an editor with M = `sites` sites, `widths` (D_in, D_out) of each, and queries of `query_width`."""

    def __init__(
        self, sites: int, widths: tuple[int, int], query_width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._sites, self._widths, self._query_width = sites, widths, query_width
        self._device, self._dtype = device, dtype
        self._pages: dict[str, _Page] = {}

    @property
    def held_bytes(self) -> int:
        return sum(page.mixture.held_bytes for page in self._pages.values())

    def mixture(self, name: str) -> Mixture:
        """Return the mixture of the page with this name, the digest of its tensors."""
        return self._pages[name].mixture

    def acquire(self, edit_id: str, name: str, tensors: Mapping[str, Tensor]) -> Mixture:
        """Count one more edit on a page, and load the page if it is new.

        Raises IncompatibleEdit if the tensors of a new page are missing or have other shapes.
        """
        if name not in self._pages:
            self._pages[name] = _Page(self._read(edit_id, tensors))
        self._pages[name].loaded_edits += 1
        return self._pages[name].mixture

    def release(self, name: str) -> None:
        """Count one edit less on a page, and forget the page with its last edit."""
        self._pages[name].loaded_edits -= 1
        if not self._pages[name].loaded_edits:
            del self._pages[name]

    def _read(self, edit_id: str, tensors: Mapping[str, Tensor]) -> Mixture:
        down = tensors.get("down")
        if down is None:
            raise IncompatibleEdit(f"The edit {edit_id} shares LoRAs with another edit of its batch, which is missing.")
        (d_in, d_out), (loras, rank) = self._widths, (*down.shape, 0, 0, 0)[1:3]
        expected = {
            "down": (self._sites, loras, rank, d_in),
            "up": (self._sites, loras, d_out, rank),
            "router": (self._sites, loras, self._query_width),
            "bias": (self._sites, loras),
        }
        shapes = {name: tuple(tensors[name].shape) for name in expected if name in tensors}
        if shapes != expected:
            raise IncompatibleEdit(f"The edit {edit_id} has LoRAs of the shapes {shapes}; this model takes {expected}.")
        return Mixture(**{name: tensors[name] for name in expected}).to(self._device, self._dtype)


@dataclass(frozen=True, slots=True, eq=False)
class ActiveLoras:
    """The k LoRAs at each site that act on a row, side by side as one: down (M, k R, D_in), up (M, D_out, k R).

    `up` contains their scores. Rows of different pages therefore have tensors of one shape, and share a product.
    """

    down: Tensor
    up: Tensor


def active_loras(mixture: Mixture, gates: Tensor, k: int) -> ActiveLoras:
    """Return the LoRAs with a gate above zero. `gates` (M, A) are the scores of the k that act, and 0 for the
    others."""
    chosen = gates.topk(min(k, gates.shape[1]), dim=1).indices.sort(1).values  # (M, k)
    sites = torch.arange(len(chosen), device=chosen.device)[:, None]
    down, up = mixture.down[sites, chosen], mixture.up[sites, chosen]  # (M, k, R, D_in), (M, k, D_out, R)
    up = up * gates[sites, chosen][..., None, None].to(up.dtype)
    return ActiveLoras(down.flatten(1, 2), up.transpose(1, 2).flatten(2, 3))


class Routing:
    """Applies to each row of a pass the LoRAs that its decision holds."""

    def __init__(self, sites: Sequence[Site], device: torch.device) -> None:
        self.sites = tuple(sites)
        self._device = device
        self._row_loras: tuple[tuple[int, ActiveLoras], ...] = ()  # the index of a row, and its LoRAs
        # one entry for each shape: row indices (N,), down (N, M, k R, D_in), up (N, M, D_out, k R)
        self._bound: list[tuple[Tensor, Tensor, Tensor]] = []

    def bind(self, key: str, rows: Sequence[RowView]) -> None:
        """Set the rows of the next pass. `key` is the key of the editor whose decisions count."""
        row_loras = tuple(
            (index, row.decision.state)
            for index, row in enumerate(rows)
            if row.decision is not None and row.decision.editor == key
        )
        if row_loras == self._row_loras:
            return  # nothing has changed since the last step
        by_rank: dict[int, list[tuple[int, ActiveLoras]]] = {}
        for index, loras in row_loras:
            by_rank.setdefault(loras.down.shape[1], []).append((index, loras))
        self._bound = [
            (
                torch.tensor([index for index, _ in group], device=self._device),
                torch.stack([loras.down for _, loras in group]),
                torch.stack([loras.up for _, loras in group]),
            )
            for group in by_rank.values()
        ]
        self._row_loras = row_loras

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if site in self.sites:
            index = self.sites.index(site)
            for rows, down, up in self._bound:
                inner = h_in[rows].to(down.dtype) @ down[:, index].transpose(1, 2)  # (N, T, k R)
                edited = h_out[rows] + (inner @ up[:, index].transpose(1, 2)).to(h_out.dtype)
                h_out = h_out.index_copy(0, rows, edited)
        return h_out
