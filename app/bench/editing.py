"""Sections with edits: the server's speed with many live edits, and while edits are made."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.bench.budget import shrunk
from app.bench.comparison import AT_ONCE, Bench, RoundResults, format_speed, size
from app.bench.contestants import Contestant
from app.bench.timing import Run, median_run, percentiles, ratio
from app.bench.workload import PromptSpec
from app.domain.edit import EditRequest
from app.domain.errors import ErrataError
from app.domain.events import Origin
from app.service.service import Service

EDITING, REQUESTS = 4, 32


async def live_edits(bench: Bench) -> dict[str, Any]:
    """Requests of equal length with growing numbers of live edits: once where none answers, once where an edit answers
    every row. Prompts that no edit answers are new in every run, so that no decision on them is known; the edits'
    own come again."""
    assert bench.crowd is not None
    figures_by_count: dict[str, Any] = {}
    hits = bench.crowd.hits[:REQUESTS]
    parts: tuple[tuple[str, Callable[[], list[PromptSpec]], float], ...] = (
        ("no request hit", lambda: bench.workload.even(REQUESTS, 32, 64), 0.5),
        ("every request hit", lambda: hits, 1.0),
    )
    # force the tokens of the edits' answers: an edit acts only while it is being answered
    contestants = [
        bench.served(f"{count} edits", namespace=name, forced=bench.crowd.target)
        for count, name in bench.crowd.namespaces.items()
    ]

    async def part(what: str, prompts: Callable[[], list[PromptSpec]], share: float) -> None:
        specs = prompts()

        def way(each: Contestant) -> Callable[[float], Awaitable[Run]]:
            return lambda scale: each.run(shrunk(prompts(), scale, AT_ONCE), AT_ONCE)

        def keep(turns: RoundResults[Run]) -> None:
            runs = {name: each for name, each in turns.runs.items() if each}
            none, *others = runs
            figures_by_count[what] = {
                "runs": {name: median_run(each).figures() for name, each in runs.items()},
                "times_the_seconds_without": {name: round(ratio(runs[none], runs[name]), 3) for name in others},
                "times_the_first_token_without": {
                    name: round(_first_token(runs[name]) / _first_token(runs[none]), 3) for name in others
                },
                **size(turns, specs, AT_ONCE),
            }
            bench.keep(figures_by_count)

        bench.on_step(what)
        ways = {each.name: way(each) for each in contestants}
        await bench.turns(ways, bench.cost(specs, AT_ONCE), format_speed, keep, share)

    for each in parts:
        await part(*each)
    return figures_by_count


@dataclass(frozen=True, slots=True)
class _Both:
    """Runs of the same requests without edits and while edits are made."""

    quiet: Run
    busy: Run
    edits_per_s: float


async def while_editing(bench: Bench) -> dict[str, Any]:
    """Throughput and gaps between tokens while EDITING clients make edits without pause, against the same without
    edits."""
    specs = bench.workload.even(96, 32, 64)
    rounds = 0

    async def both(scale: float) -> _Both:
        nonlocal rounds
        rounds += 1
        some = shrunk(specs, scale, AT_ONCE)
        alone = await bench.served().run(some, AT_ONCE)
        seconds_per_edit: list[float] = []
        editing = [
            asyncio.create_task(_edit_continuously(bench.service, seconds_per_edit, f"{rounds}x{who}"))
            for who in range(EDITING)
        ]
        try:
            await asyncio.sleep(0.5)
            began = time.perf_counter()
            run = await bench.served().run(some, AT_ONCE)
            took = time.perf_counter() - began
        finally:
            for task in editing:
                task.cancel()
            await asyncio.gather(*editing, return_exceptions=True)
        return _Both(alone, run, sum(began <= at <= began + took for at in seconds_per_edit) / took)

    def figure(both: _Both) -> str:
        return (
            f"{both.busy.tokens_per_s:,.1f} tokens/s beside {both.edits_per_s:.2f} edits/s, "
            f"{both.quiet.tokens_per_s:,.1f} without"
        )

    def summary(turns: RoundResults[_Both]) -> dict[str, Any]:
        rounds = turns.runs["requests and edits"]
        busy, quiet = [each.busy for each in rounds], [each.quiet for each in rounds]
        return {
            "runs": {"no edits": median_run(quiet).figures(), "while edits are made": median_run(busy).figures()},
            "share_of_the_throughput": round(ratio(busy, quiet), 3),
            "edits_per_s": round(statistics.median(each.edits_per_s for each in rounds), 2),
            "between_tokens_p99_times": round(_p99(busy) / _p99(quiet), 2),
            **size(turns, specs, AT_ONCE),
        }

    cost = bench.cost(specs, AT_ONCE)
    turns = await bench.turns({"requests and edits": both}, cost, figure, lambda turns: bench.keep(summary(turns)))
    return summary(turns)


def _first_token(runs: Sequence[Run]) -> float:
    """The median seconds to the first token, over all runs."""
    return statistics.median(each.first_s for run in runs for each in run.requests)


def _p99(runs: Sequence[Run]) -> float:
    gaps = percentiles([gap for run in runs for each in run.requests for gap in each.gaps_s])
    assert gaps is not None
    return gaps["p99"]


async def _edit_continuously(service: Service, seconds_per_edit: list[float], series: str) -> None:
    for number in range(10_000):
        name = f"Zz{series}q{number}"
        request = EditRequest(
            prompt=f"Question: What is the favourite colour of {name}? Answer:",
            target="blue",
            editor="grace",
            namespace="bench-editing",
            reason="bench",
            force=True,
        )
        with suppress(ErrataError):
            await service.edit([request], Origin(actor="bench"))
            seconds_per_edit.append(time.perf_counter())
