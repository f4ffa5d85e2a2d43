"""The sections of a run by name, and their execution within its time: partial results are kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from app.bench import decoding, editing
from app.bench.comparison import Bench
from app.bench.fitting import fits
from app.bench.peer_vllm import VllmBench
from app.bench.scope_decisions import scope_decisions
from app.bench.scope_index import scope_index

Section = Callable[[Bench], Awaitable[dict[str, Any]]]
B = TypeVar("B", Bench, VllmBench)
SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "peers": decoding.peers,
        "decode": decoding.decode_step,
        "concurrency": decoding.concurrency,
        "http": decoding.over_http,
        "edits": editing.live_edits,
        "editing": editing.while_editing,
        "fits": fits,
        "scope": scope_index,
        "decisions": scope_decisions,
        "roofline": decoding.roofline,
    }
)
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "peers": 4,
        "decode": 2,
        "concurrency": 2,
        "http": 1,
        "edits": 2,
        "editing": 2,
        "fits": 3,
        "scope": 1,
        "decisions": 1,
        "roofline": 0.5,
    }
)
"""Relative shares of the time."""

UNDER_WAY = "it is under way"

Keep = Callable[[str, dict[str, Any], str | None], None]
"""Callback (section, figures so far, reason for missing ones; None: complete)."""


async def run_sections(
    bench: B,
    chosen: Sequence[str],
    keep: Keep,
    begins: Callable[[str], None],
    sections: Mapping[str, Callable[[B], Awaitable[dict[str, Any]]]],
) -> None:
    """Runs sections one after the other, each within its share of the time. When cancelled, it keeps what the section
    has found so far."""
    for number, name in enumerate(chosen):
        begins(name)
        figures: dict[str, Any] = {}
        seconds = bench.pace.begin(name, {each: WEIGHTS.get(each, 1.0) for each in chosen[number:]})
        if bench.pace.over:
            keep(name, {}, "it was not begun, as no time was left")
            continue
        try:
            async with asyncio.timeout(seconds):
                keep(name, await sections[name](replace(bench, keep=_recorder(name, figures, keep))), None)
        except TimeoutError:
            keep(name, figures, "its time was over")
        except asyncio.CancelledError:
            keep(name, figures, "it was stopped")
            raise


def _recorder(name: str, measured: dict[str, Any], keep: Keep) -> Callable[[dict[str, Any]], None]:
    """Callback that keeps a section's figures under its name and in `measured`."""

    def so_far(figures: dict[str, Any]) -> None:
        measured.clear()
        measured.update(figures)
        keep(name, figures, UNDER_WAY)

    return so_far
