"""A start: ready at once where nothing is to be decided, and never before what its edits' decisions compare by."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import assemble
from app.config import Settings
from app.editors.bank import load_bank
from app.editors.what import What
from app.service.retuning import Retune
from app.service.service import Service
from app.store.base import Log
from app.store.memory import MemoryLog
from tests.models import tiny
from tests.service.conftest import ORIGIN, ask, edit, exact

BANK = tuple(prompt for prompt in load_bank() if prompt.relation < "b" or prompt.subject in ("Ukraine", "New Zealand"))
PROMPT, TARGET = "The capital of Ruritania is", "Strelsau"


@asynccontextmanager
async def started(log: Log, cache: Path | None, told: list[tuple[str, int, int]]) -> AsyncIterator[Service]:
    settings = Settings(_env_file=None, slots=8, cache_dir=cache)  # type: ignore[call-arg]
    service = assemble(tiny("llama"), log, settings, bank=BANK)
    await service.start(lambda what, done, of: told.append((what, done, of)))
    try:
        yield service
    finally:
        await service.stop()


def computed(told: list[tuple[str, int, int]]) -> bool:
    return any(what == "computing scope keys" and done == of for what, done, of in told)


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def ran(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return ran


class Held:
    """Keeps calibration from going on until it is let; `keys`: from going on once keys can be made."""

    def __init__(self, patch: pytest.MonkeyPatch, *, keys: bool = False) -> None:
        self.let = False
        self.passes = 0
        found = What._measure

        def passes(what: What) -> Iterator[Any]:
            self.passes += 1
            steps = found(what)
            while True:
                try:
                    step = next(steps)
                except StopIteration as stop:
                    return stop.value
                yield step
                while not self.let and (what._comparable or not keys):
                    yield step

        patch.setattr(What, "_measure", passes)


@run
async def test_without_edits_a_server_is_ready_first_and_a_first_edit_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    told: list[tuple[str, int, int]] = []
    async with started(MemoryLog(), tmp_path, told) as service:
        assert service.status().ready
        assert not computed(told)
        assert (await ask(service, PROMPT)).tokens  # while it is computed, requests are answered
        editing = asyncio.create_task(edit(service, PROMPT, TARGET, force=True))
        done, _ = await asyncio.wait([editing], timeout=1)
        assert not done
        held.let = True
        await editing
        assert (await ask(service, PROMPT)).text == TARGET
        assert held.passes == 1  # the edit took part in what was under way


@run
async def test_with_edits_a_server_is_not_ready_before(tmp_path: Path) -> None:
    log, first, told = MemoryLog(), [], []  # type: ignore[var-annotated]
    async with started(log, tmp_path / "one", first) as service:
        await edit(service, PROMPT, TARGET, force=True)
        before = await ask(service, PROMPT)
    async with started(log, tmp_path / "two", told) as service:
        assert computed(told)
        assert before.text == TARGET
        assert exact(await ask(service, PROMPT)) == exact(before)


@run
async def test_with_edits_a_server_is_ready_before_scopes_can_be_learned_and_answers_while_one_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    async with started(log, tmp_path / "one", []) as service:
        made = await edit(service, PROMPT, TARGET, force=True)
    held = Held(monkeypatch, keys=True)
    async with started(log, tmp_path / "two", []) as service:
        assert (await ask(service, PROMPT)).text == TARGET
        retuning = asyncio.create_task(service.retune(made.edit.id, Retune(widen=1.5), ORIGIN))
        done, _ = await asyncio.wait([retuning], timeout=0.5)
        assert not done
        assert (await ask(service, PROMPT)).text == TARGET
        held.let = True
        assert (await retuning).revision == 2
        assert held.passes == 1


@run
async def test_a_second_start_computes_nothing_and_decides_the_same(tmp_path: Path) -> None:
    log, first, told = MemoryLog(), [], []  # type: ignore[var-annotated]
    async with started(log, tmp_path, first) as service:
        await edit(service, PROMPT, TARGET, force=True)
        before = await ask(service, PROMPT)
    async with started(log, tmp_path, told) as service:
        assert "computing scope keys" not in {what for what, _, _ in told}
        after = await ask(service, PROMPT)
    assert exact(after) == exact(before)
    assert after.hits == before.hits  # with the same distances, to the last digit


@run
async def test_an_edit_of_another_server_is_not_seen_before_it_can_be_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    async with started(log, tmp_path, []) as service:
        await service.loading.calibrate()
    held = Held(monkeypatch)
    async with started(log, tmp_path, []) as writer, started(log, None, []) as reader:
        await edit(writer, PROMPT, TARGET, force=True)
        for _ in range(10):
            assert reader.revision == 0
            assert (await ask(reader, PROMPT)).revision == 0
            await asyncio.sleep(0.05)
        held.let = True
        async with asyncio.timeout(30):
            while reader.revision != writer.revision:
                await asyncio.sleep(0.01)
        assert (await ask(reader, PROMPT)).text == TARGET


@run
async def test_a_server_stops_while_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    async with asyncio.timeout(30):
        async with started(MemoryLog(), tmp_path, []) as service:
            assert service.status().ready
            await asyncio.sleep(0.1)
    assert held.passes == 1
    assert not list(tmp_path.iterdir())
