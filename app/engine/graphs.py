"""Decode steps as CUDA graphs: captured once per bucket of rows and KV width, then replayed.

A graph reads fixed buffers only: token ids, positions, columns, and per-row values of edits. An edit or a rollback
changes buffer contents, never a graph. Each graph's first answer is compared with the eager pass; if one cannot be
captured or differs, graphs are switched off and steps run eagerly, as on a CPU.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.compat import cache_argument
from app.editors.base import Editor, RowView, Site
from app.editors.fitting.hooks import Act, SiteHooks
from app.engine.kv_cache import SlotCache
from app.engine.model import HostedModel

_log = logging.getLogger(__name__)
MIN_WIDTH = 64
TOLERANCE = 0.05
"""Maximum deviation from the eager pass, as a fraction of the largest logit; more than rounding in half precision
explains."""

Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records a step. -> a replay function, and the tensor in which its result appears."""


def record_cuda(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records a step as a CUDA graph, after warm-up runs on a separate stream in which libraries initialise
    themselves."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = step()
    return graph.replay, result


def bucket(count: int, most: int) -> int:
    """The next power of two, at most `most`."""
    return min(most, 1 << max(0, count - 1).bit_length())


class DecodeGraphs:
    """One-token steps for the first slots. Participating editors read buffers of `slots` rows."""

    def __init__(
        self,
        hosted: HostedModel,
        hooks: SiteHooks,
        cache: SlotCache,
        editors: Mapping[str, Editor],
        record: Record = record_cuda,
    ) -> None:
        self._hosted, self._hooks, self._cache, self._record = hosted, hooks, cache, record
        self._editors: dict[str, Editor] = {}
        for key, editor in editors.items():
            if (reserve_rows := editor.extras.reserve_rows) is not None:
                reserve_rows(cache.slots)
                self._editors[key] = editor
        device = hosted.device
        self._ids = torch.zeros(cache.slots, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(cache.slots, 1, dtype=torch.long, device=device)
        self._columns = torch.full((cache.slots, 1), cache.max_tokens, device=device)
        self._slots = torch.arange(cache.slots, device=device)
        self._range = torch.arange(cache.max_tokens, device=device)
        self._steps: dict[tuple[int, int], tuple[Callable[[], None], Tensor]] = {}
        self._disabled = False

    def run(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        pieces: Sequence[Sequence[int]],
        rows: Sequence[RowView],
        eager: Callable[[], Tensor],
    ) -> Tensor:
        """(B, V) fp32 logits, one row per slot in `slots`; computed by `eager` if no graph can."""
        held = {row.decision.editor for row in rows if row.decision is not None}
        if self._disabled or not held <= self._editors.keys():
            return eager()
        count = bucket(slots[-1] + 1, self._cache.slots)
        width = bucket(max(max(starts) + 1, MIN_WIDTH), self._cache.max_tokens)
        known = self._steps.get((count, width))
        expected = eager() if known is None else None
        self._fill(count, slots, starts, pieces, rows)
        try:
            if known is None:
                known = self._record(partial(self._step, count, width))
            known[0]()
        except RuntimeError as error:
            return self._give_up(f"a decode step cannot be captured: {error}", expected, eager)
        logits = known[1][list(slots)].clone()
        if expected is not None:
            deviation = (logits - expected).abs().max().item()
            if deviation > TOLERANCE * expected.abs().max().item():
                return self._give_up(f"a captured step is {deviation:g} off", expected, eager)
            self._steps[count, width] = known
        return logits

    def _fill(
        self,
        count: int,
        slots: Sequence[int],
        starts: Sequence[int],
        pieces: Sequence[Sequence[int]],
        rows: Sequence[RowView],
    ) -> None:
        """Fills the buffers. Rows of other slots are idle: they write to a column that nothing reads."""
        ids, positions, columns = [0] * count, [0] * count, [self._cache.max_tokens] * count
        views = [RowView(None, (), 0, 1, 0)] * count
        for slot, start, piece, row in zip(slots, starts, pieces, rows, strict=True):
            ids[slot], positions[slot], columns[slot], views[slot] = piece[0], start, start, row
        for buffer, values in ((self._ids, ids), (self._positions, positions), (self._columns, columns)):
            buffer[:count].copy_(torch.tensor(values)[:, None])
        for editor in self._editors.values():
            editor.bind(views)

    def _step(self, count: int, width: int) -> Tensor:
        """(B, V) fp32 logits from the contents of the buffers."""
        positions = self._positions[:count]
        self._cache.place.fix(self._slots[:count], self._columns[:count], width)
        mask = self._range[:width] <= positions[..., None]  # (B, 1, W)
        acts: dict[Site, list[Act]] = {}
        for editor in self._editors.values():
            for site in editor.sites:
                acts.setdefault(site, []).append(partial(editor.apply, site))
        with self._hooks.applying(count, acts):
            logits: Any = self._hosted.model(
                input_ids=self._ids[:count],
                attention_mask=mask[:, None],
                position_ids=positions,
                **cache_argument(self._cache),
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return torch.as_tensor(logits[:, -1].float())

    def _give_up(self, reason: str, expected: Tensor | None, eager: Callable[[], Tensor]) -> Tensor:
        _log.warning("No CUDA graphs from here on: %s", reason)
        self._disabled = True
        self._steps.clear()
        return eager() if expected is None else expected
