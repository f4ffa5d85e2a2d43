"""Forward passes over slots: a prefill reads base activations, and held edits act in any pass."""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from app.compat import cache_argument
from app.editors.base import Editor, RowView, Site
from app.editors.fitting.hooks import Act, SiteHooks, capture
from app.engine.graphs import TOLERANCE, DecodeGraphs, Record
from app.engine.kv_cache import SlotCache
from app.engine.lean import WIDTH_STEP, LeanDecode
from app.engine.model import HostedModel

_log = logging.getLogger(__name__)
TRIAL_TOKENS = (101, 211, 307, 401, 503)
"""First tokens of trial inputs; the median is taken, since in half precision rounding alone can spoil one."""


@dataclass(frozen=True, slots=True)
class TokenObserver:
    """An observer of all tokens of one row's piece at a site."""

    row: int
    count: int
    site: Site
    note: Callable[[Tensor], None]

    def act(self, h_in: Tensor, h_out: Tensor) -> Tensor:
        self.note(h_in[self.row, : self.count])
        return h_out


class Runner:
    """Turns rows of (slot, first position, tokens) into logits at each row's last token."""

    def __init__(
        self,
        hosted: HostedModel,
        hooks: SiteHooks,
        editors: Mapping[str, Editor],
        slots: int,
        record: Record | None = None,
    ) -> None:
        self._hosted, self._hooks, self._editors = hosted, hooks, editors
        self.cache = SlotCache(hosted.model.config.num_hidden_layers, slots, hosted.max_tokens)
        self._sites = tuple(dict.fromkeys(site for editor in editors.values() for site in editor.sites))
        for site in self._sites:
            hooks.attach(site)
        if {device.type for device in hosted.layer_devices} == {"cpu"}:
            # at start, where a refusal of the address space can still be reported
            list(self.cache.layers_states(*hosted.kv_shape, hosted.dtype))
        self._lean = self._lean_decode()
        self._graphs = None if record is None else DecodeGraphs(hosted, hooks, self.cache, editors, record)

    @torch.inference_mode()
    def _lean_decode(self) -> LeanDecode | None:
        """The lean decoder; None if it does not support the model or deviates from it."""
        if not LeanDecode.supports(self._hosted):
            return None
        lean = LeanDecode(self._hosted, self._hooks, self.cache)
        try:
            deviation = statistics.median(self._deviation(lean, first) for first in TRIAL_TOKENS)
        except (RuntimeError, torch.jit.Error) as error:  # the operators behind it are not public
            _log.warning("Decode steps run the model's own modules: the lean ones fail (%s).", error)
            return None
        if deviation <= TOLERANCE:
            return lean
        _log.warning("Decode steps run the model's own modules: the lean ones are %.0f %% off.", 100 * deviation)
        return None

    def _deviation(self, lean: LeanDecode, first: int) -> float:
        """Deviation of a lean step from the model's own, relative to the norm of the logits, after a few tokens from
        `first` on."""
        ids = [(first + 7919 * at) % self._hosted.vocabulary for at in range(6)]
        self._at_ends([0], [0], [ids[:-1]])
        ours, expected = lean.logits([0], [5], [ids[-1]]), self._at_ends([0], [5], [ids[-1:]])
        return float((ours - expected).norm() / expected.norm())

    @torch.inference_mode()
    def prefill(
        self,
        slots: list[int],
        starts: list[int],
        pieces: Sequence[Sequence[int]],
        rows: Sequence[RowView],
        watches: Sequence["TokenObserver"] = (),
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """-> logits (B, V) fp32 and, by site, its input (B, D_in), at each row's last token.

        A row without a decision runs as in the base model; in a row that holds one, the edit acts.
        """
        last = torch.tensor([len(piece) - 1 for piece in pieces], device=self._hosted.device)
        features: dict[Site, Tensor] = {}
        acts: dict[Site, list[Act]] = {site: [capture(site, last, features)] for site in self._sites}
        for watch in watches:
            acts[watch.site].append(watch.act)
        for site, more in self._acts(rows).items():
            acts[site].extend(more)
        with self._hooks.applying(len(pieces), acts):
            logits = self._at_ends(slots, starts, pieces)
        return logits, features

    @torch.inference_mode()
    def decode_ahead(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], rows: Sequence[RowView]
    ) -> Tensor:
        """Several tokens per row -> logits (B, T, V) fp32 at each of them, with each row's held edit acting. Those
        after a shorter row's last token are arbitrary."""
        with self._hooks.applying(len(pieces), self._acts(rows)):
            return self._forward(slots, starts, pieces, list(range(max(map(len, pieces))))).float()

    @torch.inference_mode()
    def decode(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], rows: Sequence[RowView]
    ) -> Tensor:
        """One token per row, in ascending slots -> logits (B, V) fp32, with each row's held edit acting."""
        eager = partial(self._decode_eager, slots, starts, pieces, rows)
        return eager() if self._graphs is None else self._graphs.run(slots, starts, pieces, rows, eager)

    def _decode_eager(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], rows: Sequence[RowView]
    ) -> Tensor:
        """Non-decoding slots in between run as idle rows, whose results are discarded, so that keys and values are read
        in place. If they outnumber the decoding rows, those are gathered instead."""
        span = slots[-1] + 1 - slots[0]
        if span == len(slots) or span > 2 * len(slots):
            return self._decode(slots, starts, pieces, rows)
        at = {slot: row for row, slot in enumerate(slots)}
        idle = RowView(None, (), 0, 1, 0)
        everyone = [(slot, at.get(slot)) for slot in range(slots[0], slots[-1] + 1)]
        logits = self._decode(
            [slot for slot, _ in everyone],
            [-1 if row is None else starts[row] for _, row in everyone],
            [(0,) if row is None else pieces[row] for _, row in everyone],
            [idle if row is None else rows[row] for _, row in everyone],
        )
        return logits[[slot - slots[0] for slot in slots]]

    def _decode(
        self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], rows: Sequence[RowView]
    ) -> Tensor:
        acts = self._acts(rows)
        if not acts:
            return self._step(slots, starts, pieces)
        with self._hooks.applying(len(rows), acts):
            return self._step(slots, starts, pieces)

    def _step(self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]]) -> Tensor:
        if self._lean is not None and self._lean.can_run():
            self.cache.write(slots, [start + 1 for start in starts])
            return self._lean.logits(slots, starts, [piece[0] for piece in pieces])
        return self._at_ends(slots, starts, pieces)

    @torch.inference_mode()
    def move(self, source: int, target: int, tokens: int) -> None:
        """Moves a sequence to another slot."""
        self.cache.move(source, target, tokens)

    def _acts(self, rows: Sequence[RowView]) -> dict[Site, list[Act]]:
        """The actions, by site, of the editors whose edits some row holds, bound to this pass's rows."""
        acts: dict[Site, list[Act]] = {}
        for key in dict.fromkeys(row.decision.editor for row in rows if row.decision is not None):
            editor = self._editors[key]
            editor.bind(rows)
            for site in editor.sites:
                acts.setdefault(site, []).append(partial(editor.apply, site))
        return acts

    def _at_ends(self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]]) -> Tensor:
        """Runs the model -> logits (B, V) fp32 at each row's last token."""
        keep, row_of = _ends(pieces)
        picked = self._forward(slots, starts, pieces, keep)[list(range(len(pieces))), row_of]
        return picked.float()

    def _forward(self, slots: list[int], starts: list[int], pieces: Sequence[Sequence[int]], keep: list[int]) -> Tensor:
        """Runs the model -> logits (B, P, V) at the positions `keep` of the pieces; a row that starts at -1 is idle and
        writes to a column that nothing reads."""
        device, length = self._hosted.device, max(len(piece) for piece in pieces)
        ids = torch.zeros(len(pieces), length, dtype=torch.long)
        positions = torch.zeros(len(pieces), length, dtype=torch.long)
        columns = torch.full((len(pieces), length), self.cache.max_tokens)  # pads write where nothing reads
        for row, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
            count = len(piece)
            if start < 0:
                continue
            ids[row, :count] = torch.tensor(piece)
            positions[row, :count] = columns[row, :count] = torch.arange(start, start + count)
        end = max(1, *(start + len(piece) for start, piece in zip(starts, pieces, strict=True)))
        width = min(-(-end // WIDTH_STEP) * WIDTH_STEP, self.cache.max_tokens)
        ids, positions, columns = ids.to(device), positions.to(device), columns.to(device)
        self.cache.place.bind(slots, columns, width)
        self.cache.write(slots, [start + len(piece) for start, piece in zip(starts, pieces, strict=True)])
        mask = torch.arange(width, device=device) <= positions[..., None]  # (B, T, W)
        logits: Tensor = self._hosted.model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=positions,
            **cache_argument(self.cache),
            use_cache=True,
            logits_to_keep=keep,  # a list: the last layer may be on any device
        ).logits
        return logits.to(device)


def _ends(pieces: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Distinct last positions of the pieces, and each piece's index among them."""
    keep = sorted({len(piece) - 1 for piece in pieces})
    return keep, [keep.index(len(piece) - 1) for piece in pieces]
