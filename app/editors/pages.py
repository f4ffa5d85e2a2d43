"""Mixtures that several edits share, each held once; and rows of a batch that they act on. Knows no scopes.

The first edit of a batch brings the tensors, the others name them: what is shared stays as long as any of them is held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.editors.base import RowView, Site
from app.editors.mixture import Mixture, act_of


@dataclass(slots=True)
class _Page:
    mixture: Mixture
    edits: int = 0


class Pages:
    """`sites` M, `widths` (D_in, D_out) of each, `query_width` D."""

    def __init__(
        self, sites: int, widths: tuple[int, int], query_width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._sites, self._widths, self._query_width = sites, widths, query_width
        self._device, self._dtype = device, dtype
        self._pages: dict[str, _Page] = {}

    @property
    def held_bytes(self) -> int:
        return sum(page.mixture.held_bytes for page in self._pages.values())

    def mixture(self, shared: str) -> Mixture:
        return self._pages[shared].mixture

    def take(self, edit_id: str, shared: str, tensors: Mapping[str, Tensor]) -> Mixture:
        """One more edit holds what it shares. Raises IncompatibleEdit where that is missing or of other shapes."""
        if shared not in self._pages:
            self._pages[shared] = _Page(self._read(edit_id, tensors))
        self._pages[shared].edits += 1
        return self._pages[shared].mixture

    def give_back(self, shared: str) -> None:
        self._pages[shared].edits -= 1
        if not self._pages[shared].edits:
            del self._pages[shared]

    def _read(self, edit_id: str, tensors: Mapping[str, Tensor]) -> Mixture:
        down = tensors.get("down")
        if down is None:
            raise IncompatibleEdit(f"The edit {edit_id} shares LoRAs with another edit of its batch, which is missing.")
        (d_in, d_out), (loras, rank) = self._widths, (*down.shape, 0, 0, 0)[1:3]
        takes = {
            "down": (self._sites, loras, rank, d_in),
            "up": (self._sites, loras, d_out, rank),
            "router": (self._sites, loras, self._query_width),
            "bias": (self._sites, loras),
        }
        has = {name: tuple(tensors[name].shape) for name in takes if name in tensors}
        if has != takes:
            raise IncompatibleEdit(f"The edit {edit_id} has LoRAs of the shapes {has}; this model takes {takes}.")
        return Mixture(**{name: tensors[name] for name in takes}).to(self._device, self._dtype)


@dataclass(frozen=True, slots=True)
class Routed:
    """What a row holds: which page, its mixture, and the row's gates (M, A)."""

    page: str
    mixture: Mixture
    gates: Tensor


class Routing:
    """Applies to each row of a pass the mixture that it holds, a page at a time."""

    def __init__(self, sites: Sequence[Site], device: torch.device) -> None:
        self.sites = tuple(sites)
        self._device = device
        self._bound: list[tuple[Mixture, Tensor, Tensor]] = []  # mixture, its rows (N,), their gates (N, M, A)

    def bind(self, key: str, rows: Sequence[RowView]) -> None:
        by_page: dict[str, list[tuple[int, Routed]]] = {}
        for at, row in enumerate(rows):
            if row.decision is not None and row.decision.editor == key:
                by_page.setdefault(row.decision.part.page, []).append((at, row.decision.part))
        self._bound = [
            (
                held[0][1].mixture,
                torch.tensor([at for at, _ in held], device=self._device),
                torch.stack([routed.gates for _, routed in held]),
            )
            for held in by_page.values()
        ]

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if site in self.sites:
            at = self.sites.index(site)
            for mixture, rows, gates in self._bound:
                edited = act_of(mixture, at, gates[:, at])(h_in[rows], h_out[rows])
                h_out = h_out.index_copy(0, rows, edited)
        return h_out
