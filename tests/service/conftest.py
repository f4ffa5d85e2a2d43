"""A service over a tiny random model, with a clock that the test sets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.bootstrap import assemble
from app.config import Settings
from app.domain.edit import EditRequest
from app.domain.events import Origin
from app.domain.generation import GenerationParameters
from app.engine.model import HostedModel
from app.service.service import Service
from app.store.base import Log
from app.store.memory import MemoryLog
from tests.models import tiny

ORIGIN = Origin(actor="ada", reason="stale")


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for a revision as long as it takes, since other servers of a test share its cores."""
    monkeypatch.setattr("app.service.pins.MIN_REVISION_TIMEOUT_S", 60.0)


@asynccontextmanager
async def serving(
    log: Log | None = None,
    clock: Clock | None = None,
    seed: int = 0,
    hosted: HostedModel | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """A started service, of a tiny model unless one is given; stopped, drained and closed at the end."""
    chosen = Settings(_env_file=None, slots=8, **settings)  # type: ignore[call-arg]
    service = assemble(hosted or tiny("llama", seed), log or MemoryLog(), chosen, clock=clock or Clock())
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def edit(service: Service, prompt: str, target: str, origin: Origin = ORIGIN, **more: Any) -> Any:
    """Commit one edit and return its view."""
    results = await service.edit([EditRequest(prompt=prompt, target=target, **more)], origin)
    return results.results[0].view


async def ask(service: Service, prompt: str, **more: Any) -> Any:
    return await service.generate(prompt, GenerationParameters(max_new_tokens=12, **more))


def exact(generation: Any) -> list[tuple[int, float]]:
    """Token for token, log-probability for log-probability."""
    return [(token.id, token.logprob) for token in generation.tokens]


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return asyncio.run


Use = Callable[[Service], Awaitable[None]]
