"""Rows of edits that nobody can see any more are given back, and none that somebody still sees."""

import asyncio
import gc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from app.domain.generation import GenerationParameters, Token
from app.service.edit_loader import EditLoader
from app.service.service import Service
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, ask, edit, exact, serving

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.maintenance.PERIOD_S", 0.01)


def held(service: Service) -> set[str]:
    return set(service.engine.editions.owned())


async def tidied(service: Service) -> set[str]:
    """The edits in memory once all that may be released has been."""
    await asyncio.wrap_future(service.on_engine(lambda _: None))  # the step that ended the last request is over
    gc.collect()  # a finished request's futures and callbacks hold one another for a while
    released = asyncio.Event()

    async def release(*seen: Any) -> None:
        await EditLoader.release(service.loader, *seen)
        released.set()

    with patch.object(service.loader, "release", release):
        await released.wait()
    return held(service)


async def move_on(service: Service, edit_id: str, events: int) -> None:
    for number in range(events):
        await (service.enable if number % 2 else service.disable)([edit_id], ORIGIN)


def test_a_rolled_back_edit_goes_once_it_has_left_the_history() -> None:
    async def story() -> None:
        async with serving(history_revisions=3) as service:
            gone = (await edit(service, CAPITAL, "Strelsau")).edit.id
            other = (await edit(service, KING, "Rudolf")).edit.id
            told = exact(await ask(service, KING))
            await service.roll_back([gone], ORIGIN)
            await move_on(service, other, 2)
            assert await tidied(service) == {gone, other}
            assert (await ask(service, CAPITAL, revision=2)).said == "Strelsau"
            await move_on(service, other, 2)
            assert await tidied(service) == {other}
            assert exact(await ask(service, KING)) == told
            assert (await ask(service, CAPITAL)).hits == ()
            again = (await edit(service, CAPITAL, "Hentzau")).edit.id
            assert await tidied(service) == {other, again}
            assert (await ask(service, CAPITAL)).said == "Hentzau"

    asyncio.run(story())


def test_rows_stay_while_a_request_sees_them() -> None:
    async def story() -> None:
        async with serving(history_revisions=0) as service:
            gone = (await edit(service, CAPITAL, "Strelsau")).edit.id
            alone = [token.id for token in (await ask(service, CAPITAL)).tokens]
            stream = service.stream([CAPITAL], GenerationParameters(max_new_tokens=12))
            _, first = await anext(stream)
            await service.roll_back([gone], ORIGIN)
            assert await tidied(service) == {gone}
            rest = [item async for _, item in stream if isinstance(item, Token)]
            assert [token.id for token in (first, *rest)] == alone  # type: ignore[union-attr]
            del stream
            async with asyncio.timeout(60):  # the engine's thread and the loop let go of the request by themselves
                while await tidied(service):
                    pass

    asyncio.run(story())


def test_after_a_restart_what_is_left_of_the_history_goes_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(SqliteLog(tmp_path / "e.db"), history_revisions=3) as service:
            gone = (await edit(service, CAPITAL, "Strelsau")).edit.id
            other = (await edit(service, KING, "Rudolf")).edit.id
            await service.roll_back([gone], ORIGIN)
        async with serving(SqliteLog(tmp_path / "e.db"), history_revisions=3) as service:
            assert await tidied(service) == {gone, other}
            await move_on(service, other, 4)
            assert await tidied(service) == {other}

    asyncio.run(story())


def test_the_server_tidies_by_itself() -> None:
    async def story() -> None:
        async with serving(history_revisions=0) as service:
            gone = (await edit(service, CAPITAL, "Strelsau")).edit.id
            await service.roll_back([gone], ORIGIN)
            async with asyncio.timeout(60):
                while held(service):
                    await asyncio.sleep(0.05)

    asyncio.run(story())
