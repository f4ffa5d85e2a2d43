"""Mixtures that several edits share, each held once; and rows of a batch that they act on. Knows no scopes.

The first edit of a batch brings the tensors, the others name them: what is shared stays as long as any of them is held.
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


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """The k LoRAs a site that act on a row, side by side as one: down (M, k R, D_in), up (M, D_out, k R).

    Their scores are in `up`. Rows of different pages so have tensors of one shape, and share a product.
    """

    down: Tensor
    up: Tensor


def route(mixture: Mixture, gates: Tensor, k: int) -> Routed:
    """gates (M, A): scores of the LoRAs that act, 0 of the others."""
    chosen = gates.topk(min(k, gates.shape[1]), dim=1).indices.sort(1).values  # (M, k)
    sites = torch.arange(len(chosen), device=chosen.device)[:, None]
    down, up = mixture.down[sites, chosen], mixture.up[sites, chosen]  # (M, k, R, D_in), (M, k, D_out, R)
    up = up * gates[sites, chosen][..., None, None].to(up.dtype)
    return Routed(down.flatten(1, 2), up.transpose(1, 2).flatten(2, 3))


class Routing:
    """Applies to each row of a pass the LoRAs that it holds."""

    def __init__(self, sites: Sequence[Site], device: torch.device) -> None:
        self.sites = tuple(sites)
        self._device = device
        self._parts: tuple[tuple[int, Routed], ...] = ()  # a row of the pass, and what it holds
        self._bound: list[tuple[Tensor, Tensor, Tensor]] = []  # by shape: rows (N,), down (N, M, S, D_in), up

    def bind(self, key: str, rows: Sequence[RowView]) -> None:
        parts = tuple(
            (at, row.decision.part)
            for at, row in enumerate(rows)
            if row.decision is not None and row.decision.editor == key
        )
        if parts == self._parts:
            return  # as in the step before
        shapes: dict[int, list[tuple[int, Routed]]] = {}
        for at, routed in parts:
            shapes.setdefault(routed.down.shape[1], []).append((at, routed))
        self._bound = [
            (
                torch.tensor([at for at, _ in held], device=self._device),
                torch.stack([routed.down for _, routed in held]),
                torch.stack([routed.up for _, routed in held]),
            )
            for held in shapes.values()
        ]
        self._parts = parts

    def apply(self, site: Site, h_in: Tensor, h_out: Tensor) -> Tensor:
        if site in self.sites:
            at = self.sites.index(site)
            for rows, down, up in self._bound:
                inner = h_in[rows].to(down.dtype) @ down[:, at].transpose(1, 2)  # (N, T, S)
                edited = h_out[rows] + (inner @ up[:, at].transpose(1, 2)).to(h_out.dtype)
                h_out = h_out.index_copy(0, rows, edited)
        return h_out
