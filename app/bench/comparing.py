"""The sections of a run: who runs against whom, on what, in rounds. Knows no tables and no terminal."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import uvicorn

from app.api.app import create_app
from app.api.patience import Patience
from app.bench.contestants import (
    Contestant,
    ContinuousBatching,
    OneByOne,
    OverHttp,
    Served,
    StaticBatches,
)
from app.bench.crowded import Crowd
from app.bench.timing import Run, median_run, percentiles, ratio
from app.bench.workload import Ask, Workload
from app.domain.edit import EditRequest
from app.domain.errors import ErrataError
from app.domain.events import Origin
from app.engine.model import HostedModel
from app.service.service import Service

Tell = Callable[[str], None]
AT_ONCE = 16
EDITING = 4


@dataclass(frozen=True, slots=True)
class Bench:
    """What a section needs. `rounds`: each contestant runs so often, in turns; figures are medians."""

    service: Service
    hosted: HostedModel
    workload: Workload
    crowd: Crowd | None
    rounds: int
    tell: Tell

    async def rounds_of(
        self, contestants: Sequence[Contestant], asked: Sequence[Ask], at_once: int | None = None
    ) -> dict[str, list[Run]]:
        """Contestant -> its runs. One run of each comes first and does not count: allocators and caches are cold."""
        found: dict[str, list[Run]] = {each.name: [] for each in contestants}
        for number in range(self.rounds + 1):
            for each in contestants:
                self.tell(f"{each.name}: {len(asked)} requests, round {number} of {self.rounds}")
                run = await each.run(asked, at_once)
                if number:
                    found[each.name].append(run)
        return found

    def served(self, name: str = "errata", **more: Any) -> Served:
        return Served(self.service, more, name)


def _figures(found: dict[str, list[Run]], peer: str | None = None) -> dict[str, Any]:
    """Each contestant's median run; beside it how many times as fast as each other the first is."""
    first, *others = found
    against = {name: round(ratio(found[first], found[name]), 3) for name in others if peer in (None, name)}
    return {"runs": {name: median_run(runs).told() for name, runs in found.items()}, "times_as_fast_as": against}


async def peers(bench: Bench) -> dict[str, Any]:
    """Beside transformers: 16 requests at once, 48 ragged ones of which 16 are under way, one stream alone."""
    ours, cb = bench.served(), ContinuousBatching(bench.service, bench.hosted)
    one, static = OneByOne(bench.service, bench.hosted), StaticBatches(bench.service, bench.hosted)
    even, ragged = bench.workload.even(16, 32, 64), bench.workload.ragged(48, (8, 64), (8, 128))
    single = bench.workload.even(2, 32, 64)
    return {
        "16 requests of 64 tokens": _figures(await bench.rounds_of([ours, cb, static, one], even)),
        "48 ragged requests, 16 at once": _figures(await bench.rounds_of([ours, cb, static], ragged, AT_ONCE)),
        "one stream": _figures(await bench.rounds_of([ours, one], single, 1)),
    }


async def decode_step(bench: Bench) -> dict[str, Any]:
    """One step of 32 rows over long contexts: the time that more tokens take, without the prefill."""
    rows, context, tokens = 32, min(512, bench.hosted.max_tokens - 40), 16
    asked = bench.workload.even(rows, context - tokens, 1)
    more = [Ask(ask.prompt, ask.ids, 1 + tokens) for ask in asked]
    contestants: list[Contestant] = [bench.served(), ContinuousBatching(bench.service, bench.hosted)]
    short, whole = await bench.rounds_of(contestants, asked), await bench.rounds_of(contestants, more)
    steps = {
        name: [(b.seconds - a.seconds) / tokens for a, b in zip(short[name], whole[name], strict=True)]
        for name in short
    }
    ours, theirs = steps.values()
    return {
        "rows": rows,
        "context": context,
        "step_ms": {name: round(1e3 * statistics.median(each), 3) for name, each in steps.items()},
        "share_of_its_time": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
    }


async def concurrency(bench: Bench) -> dict[str, Any]:
    """Throughput and latency by how many requests are under way."""
    found = {}
    for at_once in (1, 2, 4, 8, 16, 32, 64):
        asked = bench.workload.even(max(4, 2 * at_once), 32, 64)
        runs = (await bench.rounds_of([bench.served()], asked, at_once))["errata"]
        found[str(at_once)] = median_run(runs).told()
    return found


async def over_http(bench: Bench) -> dict[str, Any]:
    """16 streaming clients in a process of their own, beside the same requests in process."""
    asked = bench.workload.even(32, 32, 64)
    async with _server(bench.service) as url:
        return _figures(await bench.rounds_of([OverHttp(url), bench.served()], asked, AT_ONCE))


@asynccontextmanager
async def _server(service: Service) -> AsyncIterator[str]:
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


async def live_edits(bench: Bench) -> dict[str, Any]:
    """The same requests among ever more live edits, where none answers and where every row is answered by one."""
    assert bench.crowd is not None
    plain = bench.workload.even(32, 32, 64)
    hits = bench.crowd.hits[:32]
    found: dict[str, Any] = {}
    for what, asked in (("no request hit", plain), ("every request hit", hits)):
        # the tokens of the edits' answers, whoever would say what: an edit acts only while it is being answered
        contestants = [
            bench.served(f"{count} edits", namespace=name, forced=bench.crowd.target)
            for count, name in bench.crowd.namespaces.items()
        ]
        runs = await bench.rounds_of(contestants, asked, AT_ONCE)
        none, *others = runs
        found[what] = {
            "runs": {name: median_run(each).told() for name, each in runs.items()},
            "times_the_seconds_without": {name: round(ratio(runs[none], runs[name]), 3) for name in others},
        }
    return found


async def while_editing(bench: Bench) -> dict[str, Any]:
    """Throughput and gaps between tokens while EDITING clients make edits without pause, beside the same without."""
    asked = bench.workload.even(96, 32, 64)
    quiet, busy, edits_per_s = [], [], []
    for number in range(bench.rounds + 1):
        bench.tell(f"while edits are made, round {number} of {bench.rounds}")
        alone = await bench.served().run(asked, AT_ONCE)
        made: list[float] = []
        editing = [asyncio.create_task(_edit_on(bench.service, made, f"{number}x{who}")) for who in range(EDITING)]
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        beside = await bench.served().run(asked, AT_ONCE)
        took = time.perf_counter() - began
        for task in editing:
            task.cancel()
        await asyncio.gather(*editing, return_exceptions=True)
        if number:
            quiet.append(alone)
            busy.append(beside)
            edits_per_s.append(sum(began <= at <= began + took for at in made) / took)
    gaps = [_p99(runs) for runs in (busy, quiet)]
    return {
        "runs": {"no edits": median_run(quiet).told(), "while edits are made": median_run(busy).told()},
        "share_of_the_throughput": round(ratio(busy, quiet), 3),
        "edits_per_s": round(statistics.median(edits_per_s), 2),
        "between_tokens_p99_times": round(gaps[0] / gaps[1], 2),
    }


def _p99(runs: Sequence[Run]) -> float:
    found = percentiles([gap for run in runs for each in run.requests for gap in each.gaps_s])
    assert found is not None
    return found["p99"]


async def _edit_on(service: Service, made: list[float], series: str) -> None:
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
            made.append(time.perf_counter())


async def roofline(bench: Bench) -> dict[str, Any]:
    """A decode step beside the least time in which its bytes can be read: weights once, keys and values of each row."""
    if bench.hosted.device.type != "cuda":
        return {}
    bandwidth = _bandwidth(bench.hosted.device)
    embeddings = bench.hosted.model.get_input_embeddings().weight
    tied = bench.hosted.model.get_output_embeddings().weight is embeddings
    weights = sum(each.numel() * each.element_size() for each in bench.hosted.model.parameters())
    weights -= 0 if tied else embeddings.numel() * embeddings.element_size()
    found: dict[str, Any] = {"bandwidth_gb_per_s": round(bandwidth / 1e9), "weights_gb": round(weights / 1e9, 2)}
    for rows, context in ((1, 64), (32, 1024)):
        tokens = 32
        asked = bench.workload.even(rows, context - tokens, 1 + tokens)
        run = median_run((await bench.rounds_of([bench.served()], asked))["errata"])
        step_s = statistics.median(gap for each in run.requests for gap in each.gaps_s)
        floor_s = (weights + rows * context * bench.hosted.kv_bytes_per_token()) / bandwidth
        found[f"{rows} rows, context {context}"] = {
            "step_ms": round(1e3 * step_s, 3),
            "floor_ms": round(1e3 * floor_s, 3),
            "times_the_floor": round(step_s / floor_s, 3),
        }
    return found


def _bandwidth(device: torch.device, gigabytes: float = 4.0, rounds: int = 10) -> float:
    """Bytes a second that a copy reads and writes, the best of some."""
    source = torch.empty(int(gigabytes * 1e9), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() / best
