"""Several servers over one log: what one commits the others serve; what is lost on the way is found again."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.edit import EditRequest, State
from app.domain.errors import InvalidRequest, StateConflict, StoreUnavailable
from app.domain.events import Event, Origin
from app.service.records import Records
from app.service.retunes import Retune
from app.store.memory import MemoryLog
from tests.domain.samples import committed
from tests.service.conftest import ORIGIN, ask, edit, exact, serving
from tests.service.replaced_log import ReplacedLog

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"
ELSEWHERE = "The court of the Elphbergs sits by the river at"


async def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


class FlakyLog(MemoryLog):
    """Says what it is told to say instead of an answer: before the append, or after it was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.lose_answer = False

    def append(self, event: Event) -> str:
        self._check()
        entry_hash = super().append(event)
        if self.lose_answer:
            self.lose_answer = False
            raise StoreUnavailable("No answer came: ask again with the same idempotency key.")
        return entry_hash

    def head(self) -> int:
        self._check()
        return super().head()

    def wait(self, after: int, timeout_s: float) -> bool:
        self._check()
        return super().wait(after, min(timeout_s, 0.05))

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("The log is away.")


def test_what_one_server_commits_the_other_serves_and_takes_back() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            before = await ask(other, CAPITAL)
            view = await edit(one, CAPITAL, "Strelsau")
            found = await ask(other, CAPITAL, min_revision=1)
            assert (found.said, found.revision) == ("Strelsau", 1)
            assert exact(found) == exact(await ask(one, CAPITAL))
            batch = [EditRequest(prompt=KING, target="Rudolf")]
            results = await one.edit(batch, ORIGIN, batch=True)
            assert (await ask(other, KING, min_revision=results.revision)).said == "Rudolf"
            await other.roll_back([view.edit.id], ORIGIN)
            await until(lambda: one.revision == other.revision)
            assert one.records.ledger.state(view.edit.id) is State.ROLLED_BACK
            assert exact(await ask(one, CAPITAL)) == exact(before)
            assert one.records.hash == other.records.hash

    asyncio.run(story())


def test_what_one_server_retunes_the_other_serves() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            made = await edit(one, CAPITAL, "Strelsau")
            await one.retune(made.edit.id, Retune(paraphrases=(ELSEWHERE,)), ORIGIN)
            await one.set_probes("default", ["The king of Zenda was"], ORIGIN)
            answer = await ask(other, ELSEWHERE, min_revision=3)
            assert (answer.said, [hit.edit_id for hit in answer.hits]) == ("Strelsau", [made.edit.id])
            assert other.records.ledger.probes == {"default": ("The king of Zenda was",)}
            assert (await ask(other, ELSEWHERE, revision=1)).said != "Strelsau"

    asyncio.run(story())


def test_racing_edits_of_two_servers_are_all_committed_in_one_order() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            work = [
                edit(service, f"The capital of {name} is", name[0])
                for service, names in ((one, ("Atlantis", "Borduria", "Cathay")), (other, ("Dinotopia", "Elbonia")))
                for name in names
            ]
            views = await asyncio.gather(*work)
            await until(lambda: one.revision == other.revision == len(views))
            assert {view.revision for view in views} == set(range(1, len(views) + 1))
            assert one.records.hash == other.records.hash
            for service in (one, other):
                for view in views:
                    assert (await ask(service, view.edit.request.prompt)).said == view.edit.request.target

    asyncio.run(story())


def test_the_same_prompt_corrected_on_two_servers_at_once_leaves_one_live() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            await asyncio.gather(edit(one, CAPITAL, "Strelsau"), edit(other, CAPITAL, "Hentzau"))
            await until(lambda: one.revision == other.revision == 2)
            answers = [(await ask(service, CAPITAL)).said for service in (one, other)]
            assert answers[0] == answers[1]
            assert [each.id for each in one.records.ledger.live("default")] == [
                each.id for each in other.records.ledger.live("default")
            ]
            assert len([each.id for each in one.records.ledger.live("default")]) == 1

    asyncio.run(story())


def test_a_change_that_another_server_made_first_is_a_conflict_not_a_lost_race() -> None:
    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as one, serving(log) as other:
            view = await edit(one, CAPITAL, "Strelsau")
            await one.roll_back([view.edit.id], ORIGIN)
            with pytest.raises(StateConflict):
                await other.roll_back([view.edit.id], ORIGIN)

    asyncio.run(story())


def test_an_append_whose_answer_was_lost_is_found_again_by_its_key() -> None:
    async def story() -> None:
        log = FlakyLog()
        keyed = Origin(actor="ada", idempotency_key="k1")
        async with serving(log) as service:
            log.lose_answer = True
            with pytest.raises(StoreUnavailable):
                await edit(service, CAPITAL, "Strelsau", keyed)
            results = await service.edit([EditRequest(prompt=CAPITAL, target="Strelsau")], keyed)
            assert (results.results[0].created, service.revision, log.head()) == (False, 1, 1)
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            log.lose_answer = True
            back = Origin(actor="ada", idempotency_key="k2", digest="x")
            with pytest.raises(StoreUnavailable):
                await service.roll_back([results.results[0].view.edit.id], back)
            (view,) = await service.roll_back([results.results[0].view.edit.id], back)
            assert (view.state, service.revision) == (State.ROLLED_BACK, 2)

    asyncio.run(story())


def test_while_the_log_is_away_answers_go_on_and_edits_are_refused() -> None:
    async def story() -> None:
        log = FlakyLog()
        async with serving(log) as service:
            await edit(service, CAPITAL, "Strelsau")
            log.away = True
            with pytest.raises(StoreUnavailable):
                await edit(service, KING, "Rudolf")
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            assert service.status().ready
            await until(lambda: service.status().log_silence_s > 0.1)
            log.away = False
            await edit(service, KING, "Rudolf")
            assert service.revision == 2

    asyncio.run(story())


def test_what_is_not_applied_yet_is_told() -> None:
    async def story() -> None:
        log = MemoryLog()
        records = Records(log)
        for revision in (1, 2):
            log.append(committed(revision, f"e{revision}"))
        assert records.lag == 0, "nobody has asked the log yet"
        records.check_history()
        assert records.lag == 2
        async with records.writing:
            await records.catch_up()
        assert records.lag == 0

    asyncio.run(story())


async def _committed(prompt: str, target: str, seed_log: MemoryLog) -> None:
    async with serving(seed_log) as service:
        await edit(service, prompt, target)


def test_a_rebuild_that_fails_is_tried_again() -> None:
    async def story() -> None:
        log = ReplacedLog()
        async with serving(log) as service:
            await edit(service, CAPITAL, "Strelsau")
            failures = iter([True, True])

            def failing(after: int, after_hash: str) -> Any:
                if after == 0 and next(failures, False):
                    raise StoreUnavailable("It is away again.")
                return log.now.follow(after, after_hash)

            log.now = MemoryLog()
            await until(lambda: not service.status().ready)
            log.follow = failing
            await service.adopt_log(0, ORIGIN)
            assert service.revision == 0
            assert (service.status().ready, (await ask(service, CAPITAL)).hits) == (True, ())

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["empty", "older", "another, longer"])
def test_another_log_in_place_of_the_one_that_was_applied_is_never_adopted_silently(kind: str) -> None:
    """This happens after FLUSHALL, from a backup, or where a failover lost acknowledged events."""

    async def story() -> None:
        log, other = ReplacedLog(), MemoryLog()
        async with serving(other) as elsewhere:
            for king in ("Rudolf", "Michael", "Black Michael"):
                await edit(elsewhere, KING, king)
        async with serving(log) as service:
            await edit(service, KING, "Rudolf", reason="kept")
            await edit(service, CAPITAL, "Strelsau")
            mine, older = log.now, MemoryLog()
            older.append(next(mine.read()))
            theirs = {"empty": MemoryLog(), "older": older, "another, longer": other}[kind]
            ends = theirs.head(), theirs.hash_of(theirs.head())
            log.now = theirs
            await until(lambda: not service.status().ready)
            why_not = service.status().why_not or ""
            assert all(word in why_not for word in ("revision 2", "errata log adopt", str(ends[0] or "empty")))
            assert (await ask(service, CAPITAL)).said == "Strelsau", "what is known is served on"
            with pytest.raises(StoreUnavailable, match="Changes are not accepted"):
                await edit(service, ELSEWHERE, "Hentzau")
            assert (theirs.head(), theirs.hash_of(theirs.head())) == ends
            log.now = mine
            await until(lambda: service.status().ready)
            assert service.revision == 2, "the right one is back: nothing was lost"
            await edit(service, ELSEWHERE, "Hentzau")
            assert service.revision == 3

    asyncio.run(story())


def test_an_operator_says_that_the_other_log_is_right() -> None:
    async def story() -> None:
        log, restored = ReplacedLog(), MemoryLog()
        await _committed(KING, "Rudolf", restored)
        async with serving(log) as service:
            with pytest.raises(StateConflict, match="nothing to adopt"):
                await service.adopt_log(0, ORIGIN)
            await edit(service, CAPITAL, "Strelsau")
            before = await ask(service, KING)
            log.now = restored
            await until(lambda: not service.status().ready)
            with pytest.raises(StateConflict, match="ends at revision 1, not 7"):
                await service.adopt_log(7, ORIGIN)
            await service.adopt_log(1, ORIGIN)
            assert service.status().ready
            assert [each.request.prompt for each in service.records.ledger.live("default")] == [KING]
            assert ((await ask(service, KING)).said, (await ask(service, CAPITAL)).hits) == ("Rudolf", ())
            log.now = MemoryLog()
            await until(lambda: not service.status().ready)
            twice = await asyncio.gather(*(service.adopt_log(0, ORIGIN) for _ in range(2)), return_exceptions=True)
            assert [type(each) for each in twice] == [type(None), StateConflict], "one adoption, one rebuild"
            assert exact(await ask(service, KING)) == exact(before)

    asyncio.run(story())


def test_a_log_that_was_trimmed_beyond_what_is_applied_is_read_from_its_snapshot() -> None:
    """The history is the same: the snapshot has the events that this server missed."""

    async def story() -> None:
        log = FlakyLog()
        async with serving(log) as one, serving(log) as other:
            await edit(one, CAPITAL, "Strelsau")
            await until(lambda: other.revision == 1)
            async with other.records.writing:  # it misses what follows
                await edit(one, KING, "Rudolf")
                await edit(one, ELSEWHERE, "Hentzau")
                await one.take_snapshot()
                log.trim(3)
            await until(lambda: other.revision == 3 and other.status().ready)
            assert (await ask(other, KING)).said == "Rudolf"

    asyncio.run(story())


class Forgetful(FlakyLog):
    """Its durability can be taken away."""

    forgets = False

    def recheck(self) -> None:
        self._check()
        if self.forgets:
            raise InvalidRequest("It may lose edits that were acknowledged (appendfsync is no).")


def test_durability_that_is_taken_away_at_run_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute."""
    monkeypatch.setattr("app.service.log_follower.RECHECK_S", 0.1)

    async def story() -> None:
        log = Forgetful()
        async with serving(log) as service:
            await edit(service, CAPITAL, "Strelsau")
            log.forgets = True
            await until(lambda: not service.status().ready)
            assert "appendfsync is no" in (service.status().why_not or "")
            with pytest.raises(StoreUnavailable):
                await edit(service, KING, "Rudolf")
            assert (await ask(service, CAPITAL)).said == "Strelsau"
            log.forgets = False
            await until(lambda: service.status().ready)
            await edit(service, KING, "Rudolf")

    asyncio.run(story())


def test_durability_is_looked_at_when_the_log_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come back as another one, long before the minute is over."""
    monkeypatch.setattr("app.service.log_follower.RECHECK_S", 3600.0)

    async def story() -> None:
        log = Forgetful()
        async with serving(log) as service:
            await edit(service, CAPITAL, "Strelsau")
            log.away = log.forgets = True
            await until(lambda: service.status().log_silence_s > 0.3)
            assert service.status().ready, "while it is away, answers go on"
            log.away = False
            await until(lambda: not service.status().ready)

    asyncio.run(story())
