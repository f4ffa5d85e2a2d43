"""Records keep up with a log of edits, and list them. No model is needed."""

import asyncio
from collections.abc import Sequence

import pytest

from app.domain.errors import IncompatibleEdit, StoreUnavailable
from app.domain.events import EditCommitted, Event
from app.domain.ledger import Ledger
from app.service.records import CATCH_UP_EVENTS, Records
from app.service.views import EditFilter
from app.store.memory import MemoryLog
from app.store.redis import RedisLog
from tests.domain.samples import committed
from tests.redis_server import running_redis


async def caught_up(records: Records) -> None:
    async with records.writing:
        await records.catch_up()


def test_keeping_up_reads_each_entry_once() -> None:
    """Reads fetch ahead: begun anew for every few events, they would fetch the same entries again and again."""
    with running_redis() as server:
        log = RedisLog(server.url)
        size = 0
        for revision in range(1, 12 * CATCH_UP_EVENTS):
            log.append(committed(revision, f"e{revision}", tensors=bytes(1_000)))
            size += len(log.entry(revision)) if revision == 1 else 0
        sent = server.client().info("stats")["total_net_output_bytes"]
        records = Records(log)
        asyncio.run(caught_up(records))
        sent = server.client().info("stats")["total_net_output_bytes"] - sent
        log.close()
    assert records.revision == 12 * CATCH_UP_EVENTS - 1
    assert sent < 1.2 * size * records.revision


def test_rows_of_many_events_are_loaded_together_and_before_any_is_folded() -> None:
    async def story() -> None:
        log, calls = MemoryLog(), []

        async def take_in(events: Sequence[Event], ledger: Ledger) -> None:
            calls.append(([event.revision for event in events], ledger.revision))

        for revision in range(1, CATCH_UP_EVENTS + 2):
            log.append(committed(revision, f"e{revision}"))
        await caught_up(Records(log, take_in))
        whole = list(range(1, CATCH_UP_EVENTS + 1))
        assert calls == [(whole, 0), *(([at], at - 1) for at in whole), ([CATCH_UP_EVENTS + 1], CATCH_UP_EVENTS)]

    asyncio.run(story())


def test_events_before_one_that_cannot_be_taken_in_are_folded() -> None:
    async def story() -> None:
        log = MemoryLog()

        async def take_in(events: Sequence[Event], _: Ledger) -> None:
            if any(isinstance(event, EditCommitted) and event.edit.id == "e3" for event in events):
                raise IncompatibleEdit("It is of another model.")

        for revision in range(1, 6):
            log.append(committed(revision, f"e{revision}"))
        records = Records(log, take_in)
        try:
            await caught_up(records)
        except IncompatibleEdit:
            assert records.revision == 2
        else:
            raise AssertionError("it is refused")

    asyncio.run(story())


def test_a_failure_of_the_joint_load_alone_holds_up_no_event() -> None:
    async def story() -> None:
        log = MemoryLog()

        async def take_in(events: Sequence[Event], _: Ledger) -> None:
            if len(events) > 1:
                raise RuntimeError("out of memory")

        for revision in range(1, 6):
            log.append(committed(revision, f"e{revision}"))
        records = Records(log, take_in)
        await caught_up(records)
        assert records.revision == 5

    asyncio.run(story())


def test_pages_of_a_namespace_are_those_of_the_whole_list_without_the_others() -> None:
    async def story() -> None:
        log = MemoryLog()
        for revision in range(1, 10):
            log.append(committed(revision, f"e{revision}", namespace="ours" if revision % 3 else "theirs"))
        records = Records(log)
        await caught_up(records)
        for namespace, ids in (("ours", "875421"), ("theirs", "963"), (None, "987654321")):
            for sort in ("newest", "oldest"):
                found, cursor = [], None
                where = EditFilter(namespace=namespace, sort=sort)
                while True:
                    page = records.page(where, 2, cursor)
                    found += [view.edit.id[1:] for view in page.edits]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                wanted = ids.replace(" ", "")
                assert "".join(found) == (wanted if sort == "newest" else wanted[::-1])
        page = records.page(EditFilter(namespace="ours"), 2, None)
        log.append(committed(10, "e10", namespace="ours"))
        await caught_up(records)
        rest = records.page(EditFilter(namespace="ours"), 9, page.next_cursor)
        assert [view.edit.id for view in rest.edits] == ["e5", "e4", "e2", "e1"], "new ones do not shift it"

    asyncio.run(story())


def test_what_was_loaded_for_an_event_whose_answer_was_lost_is_undone_before_the_event_is_read() -> None:
    class LosesItsAnswer(MemoryLog):
        def append(self, event: Event) -> str:
            super().append(event)
            raise StoreUnavailable("No answer came.")

    async def story() -> None:
        steps: list[str] = []
        log = LosesItsAnswer()
        records = Records(log)

        async def before() -> None:
            steps.append("load")

        async def undo() -> None:
            assert records.writing.locked(), "nobody may take the event in meanwhile"
            assert records.revision == 0
            await asyncio.sleep(0)
            steps.append("drop")

        with pytest.raises(StoreUnavailable):
            await records.write(lambda: committed(1, "e1"), before, undo)
        assert steps == ["load", "drop"]
        await caught_up(records)
        assert records.revision == 1

    asyncio.run(story())


def test_a_load_that_is_cancelled_is_undone_and_one_for_a_kept_event_is_not() -> None:
    async def story() -> None:
        undone: list[str] = []
        waiting = asyncio.Event()

        async def undo() -> None:
            await asyncio.sleep(0)
            undone.append("drop")

        async def before() -> None:
            waiting.set()
            await asyncio.sleep(60)

        records = Records(MemoryLog())
        writing = asyncio.create_task(records.write(lambda: committed(1, "e1"), before, undo))
        await waiting.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert (undone, records.revision) == (["drop"], 0)

        await records.write(lambda: committed(1, "e1"), undo=undo)
        assert (undone, records.revision) == (["drop"], 1)

    asyncio.run(story())
