"""Proposals in races and repetitions: what a key repeats, what is looked at again before a proposal is in the log."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import IdempotencyMismatch, ScopeConflict
from app.domain.events import Origin
from app.service.repeated import digest_of
from app.service.views import EditResults
from tests.api.fake_service import FakeService
from tests.domain.samples import committed

ASKED = EditRequest(prompt="Who?", target="Ada", reason="ticket 1")
PAT = Origin(actor="pat", key_id="k1", role="proposer", reason="ticket 1")
ED = Origin(actor="ed", key_id="k2", role="editor", reason="ticket 2")
ONCE = replace(PAT, idempotency_key="once")


class Overtaken(FakeService):
    """Somebody else publishes an edit of the same question once a preview has looked at what stands."""

    async def make(self, requests: Sequence[EditRequest], origin: Origin, *, dry_run: bool, **how: Any) -> EditResults:
        found = await super().make(requests, origin, dry_run=dry_run, **how)
        if dry_run:
            other = [replace(requests[0], target="Grace")]
            await super().make(other, ED, dry_run=False, **how)
        return found


async def proposed(service: FakeService, origin: Origin = PAT, **more: Any) -> str:
    found = (await service.edit([replace(ASKED, **more)], origin)).proposal
    assert found is not None
    return found.id


def test_of_two_repetitions_at_once_both_are_answered_with_the_one_proposal() -> None:
    async def story() -> None:
        service = FakeService()
        one, other = await asyncio.gather(proposed(service, ONCE), proposed(service, ONCE))
        assert one == other
        assert list(service.records.ledger.approval.proposals) == [one]

    asyncio.run(story())


def test_a_repetition_is_answered_with_its_own_proposal_and_not_with_the_one_that_it_superseded() -> None:
    async def story() -> None:
        service = FakeService()
        older = await proposed(service)
        newer = await proposed(service, ONCE, target="Ada Quill")
        assert await proposed(service, ONCE, target="Ada Quill") == newer != older

    asyncio.run(story())


def test_somebody_elses_edit_that_comes_after_the_preview_is_not_replaced_unread() -> None:
    async def story() -> None:
        service = Overtaken()
        with pytest.raises(ScopeConflict, match="Somebody else's"):
            await proposed(service)
        assert not service.records.ledger.approval.proposals

    asyncio.run(story())


def test_a_key_repeats_the_revision_of_one_proposal_and_of_no_other() -> None:
    async def story() -> None:
        service = FakeService()
        one, other = await proposed(service), await proposed(service, prompt="Where?")
        first, again = [(await service.proposals.revise(one, [ASKED], ONCE)).proposal for _ in range(2)]
        assert first is again is service.records.ledger.approval.proposal(one)
        with pytest.raises(IdempotencyMismatch):
            await service.proposals.revise(other, [ASKED], ONCE)

    asyncio.run(story())


def test_a_key_that_made_an_edit_is_not_taken_for_a_revision() -> None:
    async def story() -> None:
        service = FakeService()
        proposal = await proposed(service, prompt="Where?")
        used = replace(ONCE, role="editor", digest=digest_of([ASKED], batch=False))
        event = replace(committed(service.revision + 1, "e1", prompt=ASKED.prompt), origin=used)
        async with service.records.writing:
            await service.records.append(event)
        with pytest.raises(IdempotencyMismatch):
            await service.proposals.revise(proposal, [ASKED], ONCE)

    asyncio.run(story())
