"""Forward passes over slots: a prefill that reads base activations, a decode step in which edits act."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from app.editors.base import Editor, RowView, Site
from app.editors.hooks import SiteHooks
from app.engine.kv_cache import SlotCache
from app.engine.model import HostedModel

WIDTH_STEP = 64
"""KV widths are multiples of it: few shapes, so that sums are taken in the same order more often."""


class Runner:
    """Turns (slot, first position, tokens) rows into logits at each row's last token."""

    def __init__(self, hosted: HostedModel, hooks: SiteHooks, editors: Mapping[str, Editor], slots: int) -> None:
        self._hosted, self._hooks, self._editors = hosted, hooks, editors
        self.cache = SlotCache(hosted.model.config.num_hidden_layers, slots, hosted.max_tokens)
        self._sites = tuple(dict.fromkeys(site for editor in editors.values() for site in editor.sites))
        for site in self._sites:
            hooks.attach(site)

    @torch.inference_mode()
    def prefill(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]]
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """-> logits (B, V) fp32 and, by site, base activations (B, D_in), at each row's last token. No edit acts."""
        last = torch.tensor([len(piece) - 1 for piece in pieces], device=self._hosted.device)
        with self._hooks.capturing(self._sites, last) as features:
            logits = self._forward(slots, starts, pieces, last)
        return logits, features

    @torch.inference_mode()
    def decode(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], rows: Sequence[RowView]
    ) -> Tensor:
        """One token a row -> logits (B, V) fp32, with each row's held edit acting."""
        last = torch.zeros(len(slots), dtype=torch.long, device=self._hosted.device)
        if all(row.decision is None for row in rows):
            return self._forward(slots, starts, pieces, last)
        for editor in self._editors.values():
            editor.bind(rows)
        acts = {site: [e.apply for e in self._editors.values() if site in e.sites] for site in self._sites}
        with self._hooks.applying(len(rows), acts):
            return self._forward(slots, starts, pieces, last)

    def _forward(self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], last: Tensor) -> Tensor:
        device, length = self._hosted.device, max(len(piece) for piece in pieces)
        ids = torch.zeros(len(pieces), length, dtype=torch.long)
        positions = torch.zeros(len(pieces), length, dtype=torch.long)
        columns = torch.full((len(pieces), length), self.cache.max_tokens)  # pads write where nothing reads
        for row, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
            count = len(piece)
            ids[row, :count] = torch.tensor(piece)
            positions[row, :count] = columns[row, :count] = torch.arange(start, start + count)
        end = int(positions.max()) + 1
        width = min(-(-end // WIDTH_STEP) * WIDTH_STEP, self.cache.max_tokens)
        ids, positions, columns = ids.to(device), positions.to(device), columns.to(device)
        self.cache.place.bind(slots, columns, width)
        mask = torch.arange(width, device=device) <= positions[..., None]  # (B, T, W)
        keep, row_of = torch.unique(last, return_inverse=True)
        logits = self._hosted.model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits  # (B, P, V)
        picked: Tensor = logits[torch.arange(len(pieces), device=device), row_of]
        return picked.float()
