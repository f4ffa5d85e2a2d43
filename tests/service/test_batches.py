"""Several edits at once, and the same ones asked for again: what is all or nothing, and what is each for itself."""

import asyncio

import pytest

from app.domain.edit import EditRequest, State
from app.domain.errors import EditRejected, IdempotencyMismatch, InvalidRequest, ScopeConflict
from app.domain.events import Origin
from app.store.memory import MemoryLog
from tests.service.conftest import ORIGIN, ask, serving

pytestmark = pytest.mark.slow
CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"


def test_a_batch_is_all_or_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            await service.set_probes("strict", [KING], ORIGIN)
            good, bad = (
                EditRequest(prompt=CAPITAL, target="Strelsau"),
                EditRequest(prompt=KING, target="R", namespace="strict"),
            )
            with pytest.raises(EditRejected):
                await service.edit([good, bad], ORIGIN, batch=True)
            assert service.revision == 1
            with pytest.raises(InvalidRequest, match="twice"):
                await service.edit([good, good], ORIGIN, batch=True)
            both = [good, EditRequest(prompt=KING, target="Rudolf")]
            results = await service.edit(both, ORIGIN, batch=True)
            assert results.revision == 4, "two staged, one closing"
            assert [r.view.state for r in results.results] == [State.LIVE, State.LIVE]
            assert [(await ask(service, p)).said for p in (CAPITAL, KING)] == ["Strelsau", "Rudolf"]
            assert (await ask(service, CAPITAL, revision=3)).hits == (), "staged is not live"

    asyncio.run(story())


def test_the_same_key_gives_the_same_edit_and_another_body_is_refused() -> None:
    async def story() -> None:
        origin = Origin(actor="ada", idempotency_key="k1")
        request = EditRequest(prompt=CAPITAL, target="Strelsau")
        log = MemoryLog()
        async with serving(log) as service:
            one, two = await asyncio.gather(service.edit([request], origin), service.edit([request], origin))
            assert one.results[0].view.edit.id == two.results[0].view.edit.id
            assert service.revision == 1
            with pytest.raises(IdempotencyMismatch):
                await service.edit([EditRequest(prompt=KING, target="Rudolf")], origin)
            batch = [EditRequest(prompt=KING, target="Rudolf")]
            keyed = Origin(actor="ada", idempotency_key="k2")
            first = await service.edit(batch, keyed, batch=True)
            again = await service.edit(batch, keyed, batch=True)
            assert [r.view.edit.id for r in again.results] == [r.view.edit.id for r in first.results]
            back = Origin(actor="ada", idempotency_key="k3", digest="roll back the first")
            ids = [one.results[0].view.edit.id]
            assert await service.roll_back(ids, back) == await service.roll_back(ids, back)
            with pytest.raises(IdempotencyMismatch):
                await service.disable(ids, Origin(actor="ada", idempotency_key="k3", digest="something else"))

    asyncio.run(story())


def test_a_batch_that_is_not_atomic_keeps_what_could_be_made_and_names_the_rest() -> None:
    async def story() -> None:
        keyed = Origin(actor="ada", idempotency_key="k1")
        good = EditRequest(prompt=CAPITAL, target="Strelsau")
        bad = EditRequest(prompt=KING, target="R", namespace="strict")
        async with serving() as service:
            await service.set_probes("strict", [KING], ORIGIN)
            results = await service.edit([bad, good], keyed, atomic=False, batch=True)
            assert [r.view.edit.request for r in results.results] == [good]
            assert [(f.index, type(f.error)) for f in results.failures] == [(0, EditRejected)]
            assert results.revision == service.revision == 2
            again = await service.edit([bad, good], keyed, atomic=False, batch=True)
            assert [r.view.edit.id for r in again.results] == [r.view.edit.id for r in results.results]
            assert not again.results[0].created
            assert service.revision == 2
            none = await service.edit([bad, bad], ORIGIN, atomic=False, batch=True)
            assert (none.results, [f.index for f in none.failures]) == ((), [0, 1])

    asyncio.run(story())


def test_what_is_wrong_with_an_edit_of_a_batch_is_told_with_its_place() -> None:
    async def story() -> None:
        async with serving() as service:
            good, long = EditRequest(prompt=CAPITAL, target="Strelsau"), EditRequest(prompt=KING, target="R " * 500)
            with pytest.raises(InvalidRequest) as refused:
                await service.edit([good, long], ORIGIN, batch=True)
            assert refused.value.details["index"] == 1
            await service.edit([EditRequest(prompt=KING, target="Rudolf")], Origin(actor="bob"))
            with pytest.raises(ScopeConflict) as conflict:
                await service.edit([good, EditRequest(prompt=KING, target="Michael")], ORIGIN, batch=True)
            assert conflict.value.details["index"] == 1
            await service.set_probes("strict", [KING], ORIGIN)
            bad = EditRequest(prompt=KING, target="R", namespace="strict")
            with pytest.raises(EditRejected) as rejected:
                await service.edit([good, bad], ORIGIN, batch=True)
            assert (rejected.value.details["index"], rejected.value.details["edits"]) == (1, [1])

    asyncio.run(story())


def test_each_edit_of_a_batch_has_its_own_reason_in_the_log() -> None:
    async def story() -> None:
        async with serving() as service:
            requests = [
                EditRequest(prompt=CAPITAL, target="Strelsau", reason="ticket 1"),
                EditRequest(prompt=KING, target="Rudolf", reason="ticket 2"),
            ]
            await service.edit(requests, Origin(actor="ada"), batch=True)
            told = [event.origin.reason for event, _ in service.records.events(0, 10)]
            assert told == ["ticket 1", "ticket 2", None], "the closing event has no reason that is one edit's alone"

    asyncio.run(story())
