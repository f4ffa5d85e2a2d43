"""Hits are kept beside the log: over restarts, summed over servers, and never twice."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from app.domain.errors import StoreUnavailable
from app.service import hits as module
from app.service.hits import DAY_S, DAYS, FEW, PERIOD_S, PREFIX, STALE_S, Hits, day_of, read_counts
from app.service.views import EditFilter
from app.store import upkeep
from app.store.base import Log
from app.store.memory import MemoryLog
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, Clock, ask, edit, serving

CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def kept(log: Log) -> list[str]:
    return [name for name in log.names() if name.startswith(PREFIX)]


def counted(hits: Hits, edit_id: str, times: int, now_s: float = 1.0) -> None:
    for _ in range(times):
        hits.count([edit_id], now_s)
        hits.count_not_given([edit_id])


def both(hits: Hits, edit_id: str = "e1") -> int:
    """The hits of an edit; what was not given is counted as often in these tests, and kept the same way."""
    assert hits.of(edit_id) == hits.not_given(edit_id)
    return hits.of(edit_id)


def test_hits_survive_a_restart_and_are_no_events(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with serving(SqliteLog(tmp_path / "e.db"), clock) as service:
            made = await edit(service, CAPITAL, "Strelsau")
            for _ in range(3):
                await ask(service, CAPITAL)
            assert service.edit_view(made.edit.id).hits == 3
        async with serving(SqliteLog(tmp_path / "e.db"), clock) as service:
            await asyncio.to_thread(service.records.hits.exchange)
            view = service.edit_view(made.edit.id)
            assert (view.hits, view.last_hit_s, service.revision) == (3, clock.now, 1)
            await edit(service, KING, "Rudolf")
            await ask(service, CAPITAL)
            assert service.edit_view(made.edit.id).hits == 4
            never = service.edits(EditFilter(never_hit=True), 10, None)
            assert [view.edit.request.prompt for view in never.edits] == [KING]

    asyncio.run(story())


def test_hits_are_summed_over_servers() -> None:
    log, clock = MemoryLog(), Clock()
    one, other, third = (Hits(log, clock) for _ in range(3))
    counted(one, "e1", 2, now_s=5.0)
    counted(other, "e1", 3, now_s=9.0)
    counted(other, "e2", 1)
    for hits in (one, other, one, third):
        hits.exchange()
    assert [both(hits) for hits in (one, other, third)] == [5, 5, 5]
    assert (both(one, "e2"), one.last_s("e1"), one.last_s("e9")) == (1, 9.0, None)
    assert len(kept(log)) == 2, "who has counted nothing writes nothing"
    for _ in range(3):
        one.exchange()
    assert both(one) == 5


def test_counts_of_servers_that_are_gone_are_taken_over_once() -> None:
    """Every restart would otherwise leave a name for ever."""
    log, clock = MemoryLog(), Clock()
    for _ in range(5):
        gone = Hits(log, clock)
        counted(gone, "e1", 2)
        gone.exchange()
    clock.now += STALE_S + 1
    servers = [Hits(log, clock) for _ in range(3)]
    for hits in servers:
        counted(hits, "e1", 1)
    for _ in range(3):
        for hits in servers:
            hits.exchange()
    assert [both(hits) for hits in servers] == [13, 13, 13]
    assert len(kept(log)) == 3


def test_a_server_that_was_only_slow_does_not_count_twice() -> None:
    log, clock = MemoryLog(), Clock()
    slow, other = Hits(log, clock), Hits(log, clock)
    counted(slow, "e1", 4)
    slow.exchange()
    clock.now += STALE_S + 1
    counted(other, "e1", 1)
    other.exchange()
    assert both(other) == 5
    counted(slow, "e1", 2)
    for hits in (slow, other, slow):
        hits.exchange()
    assert [both(slow), both(other)] == [7, 7]


def test_hits_are_kept_by_day_over_servers_and_restarts() -> None:
    log, clock = MemoryLog(), Clock()
    one, other = Hits(log, clock), Hits(log, clock)
    for hits in (one, other, one):
        counted(hits, "e1", 2, now_s=clock.now)
        counted(hits, "e2", 1, now_s=clock.now)
        hits.exchange()
        clock.now += DAY_S
    clock.now += 2 * DAY_S
    after = Hits(log, clock)
    counted(after, "e1", 5, now_s=clock.now)
    for _ in range(2):
        after.exchange()
    assert after.by_day("e1")[-6:] == [2, 2, 2, 0, 0, 5]
    assert (sum(after.by_day("e2")), after.by_day("e3")) == (3, [0] * DAYS)
    assert len(kept(log)) == 1
    clock.now += (DAYS - 2) * DAY_S
    counted(after, "e2", 1, now_s=clock.now)
    after.exchange()
    assert (after.by_day("e1")[1], sum(after.by_day("e1")), after.of("e1")) == (5, 5, 11), "only the newest days stay"
    found = read_counts(log.get(kept(log)[0]))
    assert found is not None
    assert found.daily == {("e1", day_of(clock.now) - DAYS + 2): 5, ("e2", day_of(clock.now)): 1}


def test_a_server_that_was_only_slow_does_not_count_its_days_twice() -> None:
    log, clock = MemoryLog(), Clock()
    slow, other = Hits(log, clock), Hits(log, clock)
    counted(slow, "e1", 4, now_s=clock.now)
    slow.exchange()
    clock.now += STALE_S + 1
    counted(other, "e1", 1, now_s=clock.now)
    other.exchange()
    counted(slow, "e1", 2, now_s=clock.now)
    for hits in (slow, other, slow):
        hits.exchange()
    assert [sum(hits.by_day("e1")) for hits in (slow, other)] == [7, 7]


def test_counts_by_day_are_bounded_the_earliest_days_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DAILY", 5)
    log, clock = MemoryLog(), Clock()
    hits = Hits(log, clock)
    for edits in (3, 2, 3):
        for number in range(edits):
            counted(hits, f"e{number}", 1, now_s=clock.now)
        hits.exchange()
        clock.now += DAY_S
    assert [hits.by_day(f"e{number}")[-4:] for number in range(3)] == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]
    for number in range(9):
        counted(hits, f"e{number}", 1, now_s=clock.now)
    hits.exchange()
    assert [sum(hits.by_day(f"e{number}")) for number in range(9)] == [1] * 9, "the present day stays"


def test_counts_that_an_earlier_version_wrote_have_no_days() -> None:
    log, clock = MemoryLog(), Clock()
    log.put(f"{PREFIX}0", b'{"at_s": 1e12, "adopted": [], "hits": {"e1": [3, 1.0]}, "not_given": {"e1": 3}}')
    hits = Hits(log, clock)
    hits.exchange()
    assert (both(hits), sum(hits.by_day("e1"))) == (3, 0)


class Flaky(MemoryLog):
    """Fails the next call of a kind: before it does what it was told, or after."""

    fails: str | None = None

    def _fail(self, what: str) -> None:
        if self.fails == what:
            self.fails = None
            raise StoreUnavailable("It is away.")

    def put(self, name: str, data: bytes) -> None:
        self._fail("before put")
        super().put(name, data)
        self._fail("after put")

    def drop(self, names: object) -> None:
        self._fail("before drop")
        super().drop(names)  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", ["before put", "after put", "before drop"])
def test_taking_over_that_breaks_off_counts_nothing_twice_or_never(fails: str) -> None:
    log, clock = Flaky(), Clock()
    for _ in range(2):
        gone = Hits(log, clock)
        counted(gone, "e1", 2)
        gone.exchange()
    clock.now += STALE_S + 1
    here = Hits(log, clock)
    counted(here, "e1", 1)
    log.fails = fails
    here.exchange()
    assert log.fails is None, "it failed"
    watching = Hits(log, clock)
    for _ in range(3):
        here.exchange()
        watching.exchange()
        assert (both(here), both(watching)) == (5, 5)
    assert len(kept(log)) == 1


def test_a_crash_while_taking_over_counts_nothing_twice() -> None:
    """The counts are written, and what they hold is still there when the next server starts, much later."""
    log, clock = Flaky(), Clock()
    gone = Hits(log, clock)
    counted(gone, "e1", 2)
    gone.exchange()
    clock.now += STALE_S + 1
    crashing = Hits(log, clock)
    counted(crashing, "e1", 1)
    log.fails = "before drop"
    crashing.exchange()
    clock.now += STALE_S + 1
    for _ in range(2):
        after = Hits(log, clock)
        counted(after, "e1", 1)
        for _ in range(2):
            after.exchange()
    assert both(after) == 5


def test_a_slow_server_that_was_taken_over_but_not_dropped_goes_on_counting() -> None:
    log, clock = Flaky(), Clock()
    slow = Hits(log, clock)
    counted(slow, "e1", 2)
    slow.exchange()
    clock.now += STALE_S + 1
    crashing = Hits(log, clock)
    counted(crashing, "e1", 1)
    log.fails = "before drop"
    crashing.exchange()
    counted(slow, "e1", 4)
    slow.exchange()
    watching = Hits(log, clock)
    watching.exchange()
    assert (both(slow), both(watching)) == (7, 7)
    clock.now += STALE_S + 1
    for _ in range(2):
        slow.exchange()
        watching.exchange()
    assert (both(slow), both(watching)) == (7, 7)


def test_what_is_no_counts_costs_nothing() -> None:
    log, clock = MemoryLog(), Clock()
    for n, data in enumerate(
        (b"", b"{}", b"[1]", b'{"hits": 7}', b"\xff", b'{"at_s": 1, "adopted": [], "hits": {"e": 1}}')
    ):
        log.put(f"{PREFIX}{n}", data)
    hits = Hits(log, clock)
    counted(hits, "e1", 1)
    hits.exchange()
    assert both(hits) == 1


def test_counts_go_along_where_a_log_is_copied() -> None:
    log, clock, new = MemoryLog(), Clock(), MemoryLog()
    hits = Hits(log, clock)
    counted(hits, "e1", 2)
    hits.exchange()
    upkeep.copy(log, new)
    there = Hits(new, clock)
    there.exchange()
    assert both(there) == 2


def test_nothing_is_written_where_nothing_is_new() -> None:
    puts: Counter[str] = Counter()

    class Watched(MemoryLog):
        def put(self, name: str, data: bytes) -> None:
            puts[name] += 1
            super().put(name, data)

    log, clock = Watched(), Clock()
    hits = Hits(log, clock)
    for _ in range(3):
        hits.exchange()
    assert not puts
    counted(hits, "e1", 1)
    for _ in range(3):
        hits.exchange()
    assert sum(puts.values()) == 1


def test_a_log_that_is_away_costs_no_answers() -> None:
    async def story() -> None:
        log = Flaky()
        async with serving(log) as service:
            made = await edit(service, CAPITAL, "Strelsau", ORIGIN)
            await ask(service, CAPITAL)
            log.fails = "before put"
            await asyncio.to_thread(service.records.hits.exchange)
            assert service.edit_view(made.edit.id).hits == 1
            await asyncio.to_thread(service.records.hits.exchange)
            assert kept(log)

    asyncio.run(story())


def test_many_servers_exchange_more_rarely_but_none_so_rarely_that_it_is_taken_for_gone() -> None:
    """Each reads the counts of all: at one interval for any number of them, the reads would grow with its square."""
    log, clock = MemoryLog(), Clock()
    servers = [Hits(log, clock) for _ in range(25)]
    for number, server in enumerate(servers, 1):
        counted(server, "e1", 1)
        server.exchange()
        server.exchange()
        assert server.period_s == (PERIOD_S if number <= FEW else pytest.approx(PERIOD_S * number / FEW))
    for number in range(2_000):
        log.put(f"{PREFIX}{number}", b"")
    servers[0].exchange()
    assert PERIOD_S < servers[0].period_s <= STALE_S / 6
