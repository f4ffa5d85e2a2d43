"""A start: ready when its edits are loaded, and then it decides exactly as before."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import assemble
from app.config import Settings
from app.domain.errors import StoreUnavailable
from app.domain.events import EditCommitted
from app.scope.bank import load_bank
from app.service.retunes import Retune
from app.service.service import Service
from app.store.base import Log
from app.store.memory import MemoryLog
from tests.models import tiny
from tests.service.conftest import ORIGIN, ask, edit, exact

pytestmark = pytest.mark.slow
BANK = load_bank()[:20]
PROMPT, TARGET = "The capital of Ruritania is", "Strelsau"
OTHER = "How long does it take to ship a sofa?"


class MomentarilyAway(MemoryLog):
    """A log that cannot be reached once, when `away` is set."""

    away = False

    def head(self) -> int:
        if self.away:
            self.away = False
            raise StoreUnavailable("The store is away.")
        return super().head()


@asynccontextmanager
async def started(log: Log, cache: Path | None, told: list[tuple[str, int, int]]) -> AsyncIterator[Service]:
    settings = Settings(_env_file=None, slots=8, cache_dir=cache)  # type: ignore[call-arg]
    service = assemble(tiny("llama"), log, settings, bank=BANK)
    await service.start(lambda what, done, of: told.append((what, done, of)))
    try:
        yield service
    finally:
        await service.stop()


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def ran(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return ran


@run
async def test_without_edits_a_server_is_ready_first_and_answers(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    async with started(MemoryLog(), tmp_path, told) as service:
        assert service.status().ready
        assert not any(what == "loading edits" for what, _, _ in told)
        assert (await ask(service, PROMPT)).tokens
        await edit(service, PROMPT, TARGET, force=True)
        assert (await ask(service, PROMPT)).said == TARGET


@run
async def test_a_second_start_has_its_edits_loaded_and_decides_exactly_the_same(tmp_path: Path) -> None:
    log, told = MemoryLog(), []  # type: ignore[var-annotated]
    async with started(log, tmp_path, []) as service:
        first = await edit(service, PROMPT, TARGET, force=True)
        second = await edit(service, OTHER, "a week", force=True)
        await service.retune(first.edit.id, Retune(widen=1.5), ORIGIN)
        before = [await ask(service, prompt, explain=True) for prompt in (PROMPT, OTHER, "Where is Ruritania?")]
    async with started(log, tmp_path, told) as service:
        assert service.status().ready
        assert told[-1][0] == "loading edits"
        assert told[-1][1] == told[-1][2] > 0
        after = [await ask(service, prompt, explain=True) for prompt in (PROMPT, OTHER, "Where is Ruritania?")]
    assert [exact(each) for each in after] == [exact(each) for each in before]
    assert [each.hits for each in after] == [each.hits for each in before], "with the same signals, to the last digit"
    assert [each.nearest for each in after] == [each.nearest for each in before]
    assert [[hit.edit_id for hit in each.hits] for each in after[:2]] == [[first.edit.id], [second.edit.id]]


@run
async def test_what_others_publish_while_a_server_loads_its_edits_is_known_once_it_is_ready() -> None:
    both, log = MemoryLog(), MemoryLog()
    async with started(both, None, []) as service:
        for prompt, target in ((PROMPT, TARGET), (OTHER, "a week")):
            await edit(service, prompt, target, force=True)
    first, second = both.read()
    log.append(first)

    def tell(what: str, _done: int, _of: int) -> None:
        if what == "loading edits":
            log.append(second)

    late = assemble(tiny("llama"), log, Settings(_env_file=None, slots=8, cache_dir=None), bank=BANK)  # type: ignore[call-arg]
    await late.start(tell)
    try:
        assert late.status().ready
        assert late.revision == log.head() == 2
        assert (await ask(late, OTHER)).said == "a week"
    finally:
        await late.stop()


@run
async def test_a_store_that_is_away_for_a_moment_does_not_end_a_start() -> None:
    """The log's follower reads what was published while it loaded."""
    both, log = MemoryLog(), MomentarilyAway()
    async with started(both, None, []) as service:
        for prompt, target in ((PROMPT, TARGET), (OTHER, "a week")):
            await edit(service, prompt, target, force=True)
    first, second = both.read()
    log.append(first)

    def on_step(what: str, _done: int, _of: int) -> None:
        if what == "loading edits":
            log.append(second)
            log.away = True

    late = assemble(tiny("llama"), log, Settings(_env_file=None, slots=8, cache_dir=None), bank=BANK)  # type: ignore[call-arg]
    await late.start(on_step)
    try:
        async with asyncio.timeout(60):
            while late.revision != 2:
                await asyncio.sleep(0.01)
        assert not log.away, "it was away"
    finally:
        await late.stop()


@run
async def test_an_edit_that_was_made_before_scopes_were_texts_has_its_scope_read_from_its_request() -> None:
    log = MemoryLog()
    async with started(log, None, []) as service:
        made = await edit(service, PROMPT, TARGET, paraphrases=("Ruritania is governed from",), force=True)
        learned, before = made.edit.learned["scope"], await ask(service, PROMPT)
    old = {name: value for name, value in made.edit.learned.items() if name != "scope"}
    aged = MemoryLog()
    aged.append(EditCommitted(revision=1, at_s=0.0, origin=ORIGIN, edit=replace(made.edit, learned=old)))
    async with started(aged, None, []) as service:
        assert "scope" not in service.records.ledger.entry(made.edit.id).learned
        after = await ask(service, PROMPT)
        assert (after.said, after.hits) == (TARGET, before.hits)
        assert (await ask(service, "Ruritania is governed from")).said == TARGET
        assert (await ask(service, OTHER)).hits == ()
        # whatever changes it afterwards is stored as scopes are now
        retuned = await service.retune(made.edit.id, Retune(widen=1.5), ORIGIN)
        stored = service.records.ledger.entry(retuned.edit.id).learned["scope"]
        assert stored["keys"] == learned["keys"]
        assert stored["widened"] == 1.5


@run
async def test_an_edit_of_another_server_is_seen_once_it_can_be_decided(tmp_path: Path) -> None:
    log = MemoryLog()
    async with started(log, tmp_path, []) as writer, started(log, None, []) as reader:
        assert (reader.revision, (await ask(reader, PROMPT)).revision) == (0, 0)
        await edit(writer, PROMPT, TARGET, force=True)
        async with asyncio.timeout(60):
            while reader.revision != writer.revision:
                assert not (await ask(reader, PROMPT)).hits or reader.revision == writer.revision
                await asyncio.sleep(0.01)
        mine, theirs = await ask(writer, PROMPT), await ask(reader, PROMPT)
        assert (theirs.said, theirs.hits) == (TARGET, mine.hits)
