"""Sections without edits: against transformers, a long decode step, by concurrency, over HTTP, against the roofline."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import torch
import uvicorn

from app.api.app import create_app
from app.api.patience import Patience
from app.bench.comparison import AT_ONCE, Bench, RoundResults, figures, size
from app.bench.contestants import Contestant, ContinuousBatching, OneByOne, OverHttp, StaticBatches
from app.bench.timing import Run, median_run
from app.bench.workload import PromptSpec
from app.service.service import Service

ROWS, CONTEXT, STEPS = 32, 512, 16
"""Rows, context in tokens, and steps of the section on a decode step over long contexts."""
LEVELS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of concurrent requests."""


async def peers(bench: Bench) -> dict[str, Any]:
    """Against transformers: 16 requests at once, 48 ragged ones with 16 running, and a single stream."""
    ours, cb = bench.served(), ContinuousBatching(bench.service, bench.hosted)
    one, static = OneByOne(bench.service, bench.hosted), StaticBatches(bench.service, bench.hosted)
    even, ragged = bench.workload.even(16, 32, 64), bench.workload.ragged(48, (8, 64), (8, 128))
    single = bench.workload.even(2, 32, 64)
    parts: tuple[tuple[str, list[Contestant], list[PromptSpec], int | None, float], ...] = (
        ("16 requests of 64 tokens", [ours, cb, static, one], even, None, 0.4),
        ("48 ragged requests, 16 at once", [ours, cb, static], ragged, AT_ONCE, 0.65),
        ("one stream", [ours, one], single, 1, 1.0),
    )
    measured: dict[str, Any] = {}

    async def part(
        what: str, contestants: list[Contestant], specs: list[PromptSpec], at_once: int | None, share: float
    ) -> None:
        def keep(turns: RoundResults[Run]) -> None:
            measured[what] = figures(turns) | size(turns, specs, at_once)
            bench.keep(measured)

        bench.on_step(what)
        await bench.rounds_of(contestants, specs, at_once, share, keep)

    for each in parts:
        await part(*each)
    return measured


async def decode_step(bench: Bench) -> dict[str, Any]:
    """Time of a step of 32 rows over long contexts, as the difference between longer and shorter answers, which
    excludes the prefill. If time is short, contexts are shorter."""
    longest = min(CONTEXT, bench.hosted.max_tokens - 40)

    def specs_of(scale: float, tokens: int) -> list[PromptSpec]:
        return bench.workload.even(ROWS, max(2 * STEPS, round(longest * scale)) - STEPS, tokens)

    def way(each: Contestant) -> Callable[[float], Awaitable[tuple[float, int]]]:
        async def step(scale: float) -> tuple[float, int]:
            short = specs_of(scale, 1)
            more = [replace(spec, tokens=1 + STEPS) for spec in short]
            context = max(len(spec.ids) for spec in short) + STEPS
            return ((await each.run(more)).seconds - (await each.run(short)).seconds) / STEPS, context

        return step

    def summary(turns: RoundResults[tuple[float, int]]) -> dict[str, Any]:
        steps = {name: [seconds for seconds, _ in runs] for name, runs in turns.runs.items() if runs}
        figures: dict[str, Any] = {
            "rows": ROWS,
            "context": max(context for runs in turns.runs.values() for _, context in runs),
            "step_ms": {name: round(1e3 * statistics.median(each), 3) for name, each in steps.items()},
        }
        if len(steps) > 1:
            ours, theirs = steps.values()
            figures["share_of_its_time"] = round(
                statistics.median(a / b for a, b in zip(ours, theirs, strict=False)), 3
            )
        if not turns.whole:
            figures["size"] = {
                "context": [figures["context"], longest],
                "rounds": [turns.rounds, turns.wanted],
                "warmed_up": turns.warmed,
            }
        return figures

    contestants: list[Contestant] = [bench.served(), ContinuousBatching(bench.service, bench.hosted)]

    def keep(turns: RoundResults[tuple[float, int]]) -> None:
        bench.keep(summary(turns))

    def figure(step: tuple[float, int]) -> str:
        return f"{1e3 * step[0]:,.1f} ms a step"

    def cost(scale: float) -> float:
        return bench.cost(specs_of(scale, 1 + STEPS))(1.0)

    return summary(await bench.turns({each.name: way(each) for each in contestants}, cost, figure, keep))


async def concurrency(bench: Bench) -> dict[str, Any]:
    """Throughput and latency by number of concurrent requests."""
    figures_by_clients: dict[str, Any] = {}

    async def level(at_once: int, share: float) -> None:
        specs = bench.workload.even(max(4, 2 * at_once), 32, 64)

        def keep(turns: RoundResults[Run]) -> None:
            figures_by_clients[str(at_once)] = median_run(turns.runs["errata"]).figures() | size(turns, specs, at_once)
            bench.keep(figures_by_clients)

        bench.on_step(f"{at_once} requests under way")
        await bench.rounds_of([bench.served()], specs, at_once, share, keep)

    for number, at_once in enumerate(LEVELS):
        # requests double from level to level; the time of a step grows more slowly
        await level(at_once, 2.0 / (len(LEVELS) - number + 1))
    return figures_by_clients


async def over_http(bench: Bench) -> dict[str, Any]:
    """16 streaming clients in a separate process, against the same requests in process."""
    specs = bench.workload.even(32, 32, 64)

    def summary(turns: RoundResults[Run]) -> dict[str, Any]:
        return figures(turns) | size(turns, specs, AT_ONCE)

    async with server(bench.service) as url:
        contestants: list[Contestant] = [OverHttp(url), bench.served()]
        return summary(
            await bench.rounds_of(contestants, specs, AT_ONCE, keep=lambda turns: bench.keep(summary(turns)))
        )


@asynccontextmanager
async def server(service: Service) -> AsyncIterator[str]:
    config = uvicorn.Config(
        create_app(service), http=Patience, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def roofline(bench: Bench) -> dict[str, Any]:
    """A decode step against the minimum time for reading its bytes: the weights once, and each row's keys and
    values."""
    if bench.hosted.device.type != "cuda":
        return {}
    bandwidth = _bandwidth(bench.hosted.device)
    embeddings = bench.hosted.model.get_input_embeddings().weight
    tied = bench.hosted.model.get_output_embeddings().weight is embeddings
    weights = sum(each.numel() * each.element_size() for each in bench.hosted.model.parameters())
    weights -= 0 if tied else embeddings.numel() * embeddings.element_size()
    figures: dict[str, Any] = {"bandwidth_gb_per_s": round(bandwidth / 1e9), "weights_gb": round(weights / 1e9, 2)}
    for (rows, context), share in (((1, 64), 0.3), ((32, 1024), 1.0)):
        tokens = 32
        specs = bench.workload.even(rows, context - tokens, 1 + tokens)
        turns = await bench.rounds_of([bench.served()], specs, share=share)
        run = median_run(turns.runs["errata"])
        step_s = statistics.median(gap for each in run.requests for gap in each.gaps_s)
        floor_s = (weights + rows * context * bench.hosted.kv_bytes_per_token()) / bandwidth
        figures[f"{rows} rows, context {context}"] = {
            "step_ms": round(1e3 * step_s, 3),
            "floor_ms": round(1e3 * floor_s, 3),
            "times_the_floor": round(step_s / floor_s, 3),
        }
        bench.keep(figures)
    return figures


def _bandwidth(device: torch.device) -> float:
    """Best memory bandwidth of ten copies of 4 GB, reads plus writes, in bytes per second."""
    source = torch.empty(4_000_000_000, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() / best
