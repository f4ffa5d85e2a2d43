"""Sets up the server that is measured: a given or random model, a log in memory, and many edits."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.bench.budget import TimeBudget
from app.bench.comparison import Bench, OnMessage
from app.bench.crowded import Crowd, crowd
from app.bench.models import random_model
from app.bench.workload import Workload
from app.bootstrap import assemble, engine_threads, generic_texts, load, settle
from app.config import DEMO_MODEL, Settings
from app.engine.model import HostedModel, pick_device, pick_dtype
from app.scope.bank import load_bank
from app.store.memory import MemoryLog

DEFAULT_MAX_TOKENS = 1024
"""Maximum tokens of a sequence unless the settings name one: more would only reserve memory."""


@asynccontextmanager
async def started_server(
    settings: Settings,
    shape: str | None,
    counts: Sequence[int],
    rounds: int,
    seed: int,
    tell: OnMessage,
    figure: OnMessage,
    pace: TimeBudget,
) -> AsyncIterator[Bench]:
    """Loads, fills and starts the server, and stops it at the end. `counts`: numbers of live edits, each in its own
    namespace; empty: no edits."""
    tell("loading the model")
    threads = engine_threads(settings)
    hosted = _hosted(settings, shape)
    log = MemoryLog()
    service = assemble(hosted, log, settings, bank=load_bank(), threads=threads)
    texts = list(generic_texts(settings))
    random.Random(seed).shuffle(texts)
    workload = Workload(hosted.tokenizer, texts, seed)
    made: Crowd | None = None
    if counts:
        tell(f"{sum(counts):,} edits into the log")
        made = crowd(service.engine, log, service.status().model_fingerprint, counts, hits=32, tokens=64, seed=seed)
    tell("starting")
    await service.start()
    settle()
    try:
        yield Bench(service, hosted, workload, made, rounds, tell, figure, pace)
    finally:
        await service.stop()


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
