"""Sets up the server that is measured: a given or random model, a log in memory, and many edits."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.bench.budget import TimeBudget
from app.bench.comparison import Bench, OnMessage
from app.bench.crowded import Crowd, crowd, edit_prompt
from app.bench.models import random_model
from app.bench.workload import Workload
from app.bootstrap import assemble, engine_threads, generic_texts, load, settle
from app.config import DEMO_MODEL, Settings
from app.engine.model import HostedModel, pick_device, pick_dtype
from app.engine.serving_engine import ServingEngine
from app.scope.bank import load_bank
from app.store.memory import MemoryLog

DEFAULT_MAX_TOKENS = 1024
"""Maximum tokens of a sequence unless the settings name one: more would only reserve memory."""
CROWD_SHARE = 0.3
"""Share of the time that is left for putting edits into the log and starting with them."""
SAMPLE = 24
"""Number of questions that tell how long an edit takes to load: most of it is encoding its key."""
HITS = 32
"""Number of edits in each namespace that answer; the least that one can hold."""


@asynccontextmanager
async def started_server(
    settings: Settings,
    shape: str | None,
    counts: Sequence[int],
    rounds: int,
    seed: int,
    on_step: OnMessage,
    figure: OnMessage,
    pace: TimeBudget,
) -> AsyncIterator[Bench]:
    """Loads, fills and starts the server, and stops it at the end. `counts`: numbers of live edits, each in its own
    namespace; empty: no edits."""
    on_step("loading the model")
    threads = engine_threads(settings)
    hosted = _hosted(settings, shape)
    log = MemoryLog()
    service = assemble(hosted, log, settings, bank=load_bank(), threads=threads)
    texts = list(generic_texts(settings))
    random.Random(seed).shuffle(texts)
    workload = Workload(hosted.tokenizer, texts, seed)
    crowded: Crowd | None = None
    if counts:
        affordable = affordable_counts(counts, _edit_s(service.engine, pace), CROWD_SHARE * pace.left)
        if affordable != list(counts):
            figure(f"{_listed(affordable)} live edits in place of {_listed(counts)}: there is no time to load more")
        on_step(f"{sum(affordable):,} edits into the log")
        fingerprint = service.status().model_fingerprint
        crowded = crowd(service.engine, log, fingerprint, affordable, hits=HITS, tokens=64, seed=seed, prompt=32)
    on_step("starting")
    await service.start()
    settle()
    try:
        yield Bench(service, hosted, workload, crowded, rounds, on_step, figure, pace)
    finally:
        await service.stop()


def affordable_counts(counts: Sequence[int], edit_s: float, seconds: float) -> list[int]:
    """The numbers of live edits, ascending, of which the largest are cut down to what loads in so many seconds."""
    affordable: list[int] = []
    for count in counts:
        room = seconds / edit_s - sum(affordable)
        affordable.append(count if count <= room else max(HITS, int(room)))
    return list(dict.fromkeys(affordable))


def _edit_s(engine: ServingEngine, pace: TimeBudget) -> float:
    """Seconds that an edit takes to load."""
    engine.scope.question((edit_prompt("Zq"),))  # the first one loads the encoder
    began = pace.clock()
    for at in range(SAMPLE):
        engine.scope.question((edit_prompt(f"Zq{at}w"),))
    return max(1e-6, (pace.clock() - began) / SAMPLE)


def _listed(counts: Sequence[int]) -> str:
    return " and ".join(f"{count:,}" for count in counts)


def _hosted(settings: Settings, shape: str | None) -> HostedModel:
    if shape is None:
        return load(settings)
    device = pick_device(settings.device)
    return random_model(
        shape,
        str(DEMO_MODEL),
        device=device,
        dtype=pick_dtype(settings.dtype, device),
        max_tokens=settings.max_sequence_tokens or DEFAULT_MAX_TOKENS,
    )
