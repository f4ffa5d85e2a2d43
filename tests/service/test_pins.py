"""A request sees the edits of its namespace and revision, as the switches and its admission allow."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.errors import (
    InvalidRequest,
    RevisionAhead,
    RevisionGone,
    StateConflict,
    UnknownEdit,
)
from app.domain.events import Origin
from app.domain.generation import Generation, GenerationParameters
from app.service.records import Records
from tests.service.conftest import ORIGIN, ask, edit, serving

CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def test_namespaces_switches_exclusion_and_time_travel() -> None:
    async def story() -> None:
        async with serving(history_revisions=3) as service:
            view = await edit(service, CAPITAL, "Strelsau", namespace="tenant-a")
            edit_id = view.edit.id

            async def hit(**more: object) -> bool:
                return bool((await ask(service, CAPITAL, **more)).hits)

            assert [await hit(namespace="tenant-a"), await hit(namespace="tenant-b"), await hit()] == [
                True,
                False,
                False,
            ]
            assert not await hit(namespace="tenant-a", edits="off")
            assert not await hit(namespace="tenant-a", exclude=(edit_id,))
            assert not await hit(namespace="tenant-a", revision=0)
            with pytest.raises(UnknownEdit):
                await hit(exclude=("ed_nothing",))
            await service.set_switch(None, False, ORIGIN)
            assert not await hit(namespace="tenant-a")
            assert not service.status().switched_on
            await service.set_switch(None, True, ORIGIN)
            await service.set_switch("tenant-a", False, ORIGIN)
            assert not await hit(namespace="tenant-a")
            with pytest.raises(StateConflict):
                await service.set_switch("tenant-a", False, ORIGIN)
            await service.set_switch("tenant-a", True, ORIGIN)
            assert await hit(namespace="tenant-a")
            assert not await hit(namespace="tenant-a", revision=4)
            with pytest.raises(RevisionGone):
                await hit(revision=1)
            with pytest.raises(InvalidRequest, match="does not exist"):
                await hit(revision=99)

    asyncio.run(story())


def test_read_your_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, wait_for = asyncio.Event(), Records.wait_for

    async def watched(*asked: Any) -> bool:
        waits.set()
        return await wait_for(*asked)

    async def story() -> None:
        monkeypatch.setattr(Records, "wait_for", watched)
        async with serving() as service:
            waiting = asyncio.create_task(ask(service, CAPITAL, min_revision=1))
            await waits.wait()
            await service.set_switch("default", False, ORIGIN)
            assert (await waiting).revision == 1
            monkeypatch.setattr("app.service.pins.MIN_REVISION_TIMEOUT_S", 0.01)
            with pytest.raises(RevisionAhead):
                await ask(service, CAPITAL, min_revision=9)

    asyncio.run(story())


def test_a_request_under_way_keeps_the_edits_it_was_admitted_with() -> None:
    async def story() -> None:
        async with serving() as service:
            view = await edit(service, CAPITAL, "Strelsau, and nowhere else in the world")
            stream = service.stream([CAPITAL], GenerationParameters(max_new_tokens=60))
            shown = [(await anext(stream))[1].text]
            await service.roll_back([view.edit.id], ORIGIN)
            async for _, item in stream:
                if isinstance(item, Generation):
                    assert item.text == " Strelsau, and nowhere else in the world" == "".join(shown)
                    assert item.revision == 1
                else:
                    shown.append(item.text)
            assert (await ask(service, CAPITAL)).hits == ()

    asyncio.run(story())


def test_rolling_back_to_a_revision_takes_all_later_edits() -> None:
    async def story() -> None:
        async with serving() as service:
            ids = [
                (await edit(service, f"The capital of {n} is", "X")).edit.id for n in ("Utopia", "Laputa", "Erewhon")
            ]
            gone = await service.roll_back_to(1, "default", ORIGIN)
            assert {view.edit.id for view in gone} == set(ids[1:])
            assert service.revision == 4, "one event for all of them"
            assert service.records.ledger.state(ids[0]) is State.LIVE

    asyncio.run(story())


def test_rolling_back_to_a_revision_again_under_its_key_answers_the_same() -> None:
    async def story() -> None:
        async with serving() as service:
            await edit(service, CAPITAL, "Strelsau")
            back = Origin(actor="ada", idempotency_key="k", digest="all")
            first = await service.roll_back_to(0, "default", back)
            later = await edit(service, KING, "Rudolf")
            again = await service.roll_back_to(0, "default", back)
            assert [view.edit.id for view in again] == [view.edit.id for view in first]
            assert service.records.ledger.state(later.edit.id) is State.LIVE

    asyncio.run(story())
