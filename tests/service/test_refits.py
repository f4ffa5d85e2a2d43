"""Edits that shared LoRAs with a rolled back one are fitted again without it, which lands as an event."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import StoreUnavailable
from app.domain.events import EditsRefitted, Event
from app.service.retunes import Retune
from app.service.service import Service
from app.service.trial_answers import TrialAnswers
from app.store.memory import MemoryLog
from app.store.sqlite import SqliteLog
from tests.service.conftest import ORIGIN, ask, exact, serving

pytestmark = pytest.mark.slow

FACTS = [("The capital of Ruritania is", "S"), ("The king of Zenda was", "R"), ("Where does Marvolo live?", "H")]


async def make(service: Service, facts: list[tuple[str, str]] = FACTS) -> list[str]:
    requests = [EditRequest(prompt=prompt, target=target, editor="lora_mixture") for prompt, target in facts]
    results = await service.edit(requests, ORIGIN, batch=True)
    return [result.view.edit.id for result in results.results]


async def settled(service: Service, revision: int) -> None:
    assert await service.records.wait_for(revision, 60), "no refit came"


async def answers(service: Service, facts: list[tuple[str, str]] = FACTS) -> list[Any]:
    return [await ask(service, prompt) for prompt, _ in facts]


@pytest.mark.parametrize("gone", range(3))
def test_what_stays_is_as_if_the_rolled_back_one_had_never_been(gone: int) -> None:
    async def story() -> None:
        async with serving() as service:
            bare = await ask(service, FACTS[gone][0])
            ids = await make(service)
            before = [answer.said for answer in await answers(service)]
            assert before == [target for _, target in FACTS]
            revision = (await service.roll_back([ids[gone]], ORIGIN))[0].revision
            assert exact(await ask(service, FACTS[gone][0])) == exact(bare), "out of scope at once"
            await settled(service, revision + 1)
            (event, _hash) = service.records.events(revision, 10)[0]
            assert isinstance(event, EditsRefitted)
            assert set(event.edit_ids) == set(ids) - {ids[gone]}
            kept = [fact for at, fact in enumerate(FACTS) if at != gone]
            now = await answers(service, kept)
            assert [answer.said for answer in now] == [target for _, target in kept]
            assert [answer.hits[0].edit_id for answer in now] == [i for at, i in enumerate(ids) if at != gone]
            async with serving() as never:
                await make(never, kept)
                assert [exact(a) for a in now] == [exact(a) for a in await answers(never, kept)]
            view = service.records.view(ids[gone - 1])
            assert [item.kind for item in view.history][-1] == "edits_refitted"

    asyncio.run(story())


def test_what_is_fitted_again_reaches_no_farther_than_it_did() -> None:
    """The probe or recent prompt that bounded its scope when it was made may have gone."""

    async def story() -> None:
        async with serving() as service:
            await service.set_probes("default", ["The colour of Ruritania is"], ORIGIN)
            ids = await make(service)
            await service.set_probes("default", [], ORIGIN)
            before = service.records.ledger.entry(ids[0]).learned
            revision = (await service.roll_back([ids[2]], ORIGIN))[0].revision
            await settled(service, revision + 1)
            now = service.records.ledger.entry(ids[0]).learned
            assert now["shared"] != before["shared"]
            assert now["scope"] == before["scope"]
            assert before["scope"]["counter"] == ["The colour of Ruritania is"]

    asyncio.run(story())


def test_time_travel_sees_the_fit_of_its_revision() -> None:
    async def story() -> None:
        async with serving() as service:
            ids = await make(service)
            then, revision = [exact(a) for a in await answers(service)], service.revision
            await service.roll_back([ids[2]], ORIGIN)
            await settled(service, revision + 2)
            back = [await ask(service, prompt, revision=revision) for prompt, _ in FACTS]
            assert [exact(answer) for answer in back] == then

    asyncio.run(story())


def test_a_server_that_starts_later_sees_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        url = tmp_path / "log.db"
        async with serving(SqliteLog(url)) as service:
            ids = await make(service)
            revision = (await service.roll_back([ids[0]], ORIGIN))[0].revision
            await settled(service, revision + 1)
            now = [exact(answer) for answer in await answers(service)]
            await service.snapshots.take()
        async with serving(SqliteLog(url)) as service:
            assert [exact(answer) for answer in await answers(service)] == now
        async with serving(SqliteLog(url), history_revisions=0) as service:
            assert [exact(answer) for answer in await answers(service)] == now

    asyncio.run(story())


def test_until_it_is_refitted_a_page_is_whole_though_who_brought_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        log = MemoryLog()
        monkeypatch.setattr(MemoryLog, "close", lambda self: None)
        monkeypatch.setattr("app.service.refits.Refitter.run", lambda self: asyncio.Event().wait())
        async with serving(log) as service:
            ids = await make(service)
            await service.roll_back([ids[0]], ORIGIN)
            now = [exact(answer) for answer in await answers(service)]
        async with serving(log, history_revisions=0) as service:
            assert [exact(answer) for answer in await answers(service)] == now
            revision = service.revision
        monkeypatch.undo()
        async with serving(log, history_revisions=0) as service:
            await settled(service, revision + 1)
            assert [answer.said for answer in await answers(service, FACTS[1:])] == ["R", "H"]

    asyncio.run(story())


def test_what_does_not_hold_without_the_other_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            ids = await make(service)
            really = TrialAnswers.answer

            async def answer(self: TrialAnswers, prompt: str, edition: Any, target: str) -> Any:
                if any("trial" in each for each in edition.edit_ids):
                    return await really(self, "an unrelated prompt", edition, target)
                return await really(self, prompt, edition, target)

            monkeypatch.setattr(TrialAnswers, "answer", answer)
            await service.roll_back([ids[0]], ORIGIN)
            revision = service.revision
            assert service.refitter.due()
            while service.refitter.due():
                await asyncio.sleep(0.05)
            assert service.revision == revision
            assert [a.said for a in await answers(service, FACTS[1:])] == ["R", "H"]
            assert len(service.engine.editions.owned()) == 3

    asyncio.run(story())


def test_a_retune_during_a_refit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving() as service:
            ids = await make(service)
            really, retuned = TrialAnswers.answer, False

            async def answer(self: TrialAnswers, prompt: str, edition: Any, target: str) -> Any:
                nonlocal retuned
                if not retuned and any("@trial" in each for each in edition.edit_ids):
                    retuned = True
                    await service.retune(ids[1], Retune(widen=1.5, force=True), ORIGIN)
                return await really(self, prompt, edition, target)

            monkeypatch.setattr(TrialAnswers, "answer", answer)
            revision = (await service.roll_back([ids[0]], ORIGIN))[0].revision
            await settled(service, revision + 2)
            assert retuned
            kinds = [event.kind for event, _ in service.records.events(revision, 10)]
            assert kinds == ["edit_retuned", "edits_refitted"]
            assert service.records.ledger.entry(ids[1]).widened == 1.5

    asyncio.run(story())


def test_a_refit_whose_append_fails_leaves_no_rows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another server's refit of that revision would have the same name, and take these rows for its own."""

    class Away(MemoryLog):
        def append(self, event: Event) -> str:
            if isinstance(event, EditsRefitted):
                raise StoreUnavailable("The log is away.")
            return super().append(event)

    async def story() -> None:
        monkeypatch.setattr("app.service.refits.PAUSE_S", 600.0)
        async with serving(Away()) as service:
            ids = await make(service)
            await service.roll_back([ids[0]], ORIGIN)
            async with asyncio.timeout(60):
                while "not refitted yet" not in caplog.text:
                    await asyncio.sleep(0.05)
            assert sorted(service.engine.editions.owned()) == sorted(ids)

    asyncio.run(story())
