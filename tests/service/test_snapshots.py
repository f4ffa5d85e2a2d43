"""Servers that start from a snapshot, take them by themselves, and find that a log was trimmed under them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.errors import IncompatibleEdit
from app.domain.events import Origin
from app.service.service import Service
from app.service.views import EditFilter
from app.store import upkeep
from app.store.base import Log
from app.store.memory import MemoryLog
from app.store.snapshots import manifests
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, ask, edit, exact, serving
from tests.service.replaced_log import ReplacedLog

pytestmark = pytest.mark.slow
CAPITAL, KING, RIVER = "The capital of Ruritania is", "The king of Zenda was", "The river of Strelsau is the"


async def told(service: Service) -> Any:
    """All that a client could see of the edits, and their answers."""
    answers = [exact(await ask(service, prompt, **at)) for prompt in (CAPITAL, KING) for at in ({}, {"revision": 2})]
    views = [
        (view.edit, view.state, view.revision, view.history, view.live)
        for view in service.edits(EditFilter(), 10, None).edits
    ]
    return service.revision, service.records.hash, answers, views


def archived(log: Any) -> MemoryLog:
    archive = MemoryLog()
    upkeep.copy(log, archive)
    return archive


def test_a_trimmed_log_starts_from_its_snapshot_and_nothing_differs(tmp_path: Path) -> None:
    async def story() -> None:
        once = Origin(actor="ada", idempotency_key="once", reason="r")
        async with serving(SqliteLog(tmp_path / "e.db")) as service:
            await edit(service, CAPITAL, "Strelsau")
            await edit(service, KING, "Rudolf", origin=once)
            await edit(service, KING, "Michael")
            await service.roll_back([[each.id for each in service.records.ledger.live("default")][-1]], ORIGIN)
            manifest, new = await service.take_snapshot()
            assert (manifest.revision, new) == (4, True)
            await edit(service, RIVER, "Elb")
            before = await told(service)
        log = SqliteLog(tmp_path / "e.db")
        upkeep.trim(log, archived(log))
        assert log.first() == 4
        async with serving(log) as service:
            assert await told(service) == before
            again = await edit(service, KING, "Rudolf", origin=once)
            assert (service.revision, again.history[0].revision) == (5, 2), "the key was used before the snapshot"
            await edit(service, CAPITAL, "Hentzau")
            assert (
                service.records.ledger.state(service.edits(EditFilter(), 10, None).edits[-1].edit.id)
                is State.SUPERSEDED
            )

    asyncio.run(story())


def test_a_snapshot_of_another_model_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(SqliteLog(tmp_path / "e.db")) as service:
            mine = (await edit(service, CAPITAL, "Strelsau")).edit.model_fingerprint
            await service.take_snapshot()
        log = SqliteLog(tmp_path / "e.db")
        upkeep.trim(log, archived(log))
        with pytest.raises(IncompatibleEdit) as error:
            async with serving(log, seed=1):
                pass
        assert mine in error.value.message
        assert error.value.message.count("/") >= 2

    asyncio.run(story())


def test_servers_over_one_log_take_snapshots_by_themselves_once_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Log] = []
    monkeypatch.setattr("app.service.snapshots.manifests", lambda log: looks.append(log) or manifests(log))

    async def looked_again(times: int = 6) -> None:
        """Both servers have looked for snapshots, this often together."""
        before = len(looks)
        async with asyncio.timeout(60):
            while len(looks) < before + times:
                await asyncio.sleep(0.01)

    async def story() -> None:
        log = MemoryLog()
        often: dict[str, Any] = {"snapshot_period_s": 0.05, "snapshot_min_events": 2}
        async with serving(log, **often) as one, serving(log, **often) as other:
            await edit(one, CAPITAL, "Strelsau")
            await looked_again()
            assert await one.snapshots.listed() == []
            await edit(other, KING, "Rudolf")
            async with asyncio.timeout(60):
                while not await one.snapshots.listed():
                    await asyncio.sleep(0.05)
            await looked_again()
            found = await other.snapshots.listed()
            assert {manifest.revision for manifest in found} == {2}

    asyncio.run(story())


def test_a_server_that_fell_behind_a_trim_rebuilds_from_the_snapshot() -> None:
    async def story() -> None:
        log, cut_off = MemoryLog(), ReplacedLog()
        async with serving(log) as one, serving(cut_off) as other:
            await edit(one, CAPITAL, "Strelsau")
            await edit(one, KING, "Rudolf")
            await one.take_snapshot()
            await edit(one, RIVER, "Elb")
            upkeep.trim(log, archived(log))
            cut_off.now = log
            async with asyncio.timeout(60):
                while other.revision < 3 or not other.status().ready:
                    await asyncio.sleep(0.02)
            assert [exact(await ask(other, p)) for p in (CAPITAL, KING, RIVER)] == [
                exact(await ask(one, p)) for p in (CAPITAL, KING, RIVER)
            ]

    asyncio.run(story())
