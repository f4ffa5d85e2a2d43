"""Proposals in races and repetitions: what a key repeats, what is looked at again before a proposal is in the log."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from app.domain.approval import ProposalState
from app.domain.edit import EditRequest
from app.domain.errors import (
    IdempotencyMismatch,
    InvalidRequest,
    PreconditionFailed,
    QueueFull,
    RequestCancelled,
    ScopeConflict,
    StateConflict,
    StoreUnavailable,
)
from app.domain.events import Origin, ProposalRevised
from app.service import proposals
from app.service.idempotency import digest_of
from app.service.proposals import Proposals
from app.service.records import Records
from app.service.views import EditOptions, EditResults
from tests.api.fake_service import FakeService
from tests.domain.samples import committed

ASKED = EditRequest(prompt="Who?", target="Ada", reason="ticket 1")
PAT = Origin(actor="pat", key_id="k1", role="proposer", reason="ticket 1")
ED = Origin(actor="ed", key_id="k2", role="editor", reason="ticket 2")
ONCE = replace(PAT, idempotency_key="once")


class Overtaken(FakeService):
    """Somebody else publishes an edit of the same question once a preview has looked at what stands."""

    async def make(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        found = await super().make(requests, origin, options)
        if options.dry_run:
            other = [replace(requests[0], target="Grace")]
            await super().make(other, ED, replace(options, dry_run=False))
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


def refusing(error: Exception) -> Any:
    def refuse(*_: object) -> None:
        raise error

    return refuse


def with_parts(service: FakeService, working: Any = nullcontext, check_reason: Any = lambda _: None) -> Proposals:
    """The use cases over the service's records, with other parts around them."""
    return Proposals(service.records, service.make, lambda: service.now_s, working, check_reason)


def other_server(service: FakeService) -> Proposals:
    """The use cases of another server over the same log, as far as it has read it now."""
    records = Records(service.records.log)
    records.fold_all()
    return Proposals(records, service.make, lambda: service.now_s, nullcontext, lambda _: None)


def test_nothing_is_decided_while_the_server_stops() -> None:
    async def story() -> None:
        service = FakeService()
        proposal, revision = await proposed(service), service.revision
        stopping = with_parts(service, working=refusing(RequestCancelled("stopping")))
        for deciding in (
            stopping.withdraw(proposal, PAT),
            stopping.send_back(proposal, ED),
            stopping.approve(proposal, ED),
            stopping.revise(proposal, [ASKED], PAT),
        ):
            with pytest.raises(RequestCancelled):
                await deciding
        assert service.revision == revision

    asyncio.run(story())


def test_nothing_is_fitted_for_an_approval_that_the_log_would_not_take() -> None:
    async def story() -> None:
        service = FakeService()
        proposal = await proposed(service)
        made = len(service.origins)
        with pytest.raises(StoreUnavailable):
            await with_parts(service, check_reason=refusing(StoreUnavailable("held"))).approve(proposal, ED)
        assert len(service.origins) == made

    asyncio.run(story())


def test_an_approval_says_why_on_a_server_that_wants_reasons_where_the_proposal_does_not() -> None:
    async def story() -> None:
        service = FakeService()
        proposal = await proposed(service, replace(PAT, reason=None), reason=None)
        service.reason_required = True
        with pytest.raises(InvalidRequest, match="reason"):
            await service.proposals.approve(proposal, replace(ED, reason=None))
        assert (await service.proposals.approve(proposal, ED)).results

    asyncio.run(story())


def test_refused_approvals_and_revisions_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.service.log_lines")

    async def story() -> None:
        service = FakeService()
        proposal = await proposed(service)
        await service.proposals.send_back(proposal, ED)
        with pytest.raises(StateConflict):
            await service.proposals.approve(proposal, ED)
        await service.proposals.withdraw(proposal, PAT)
        with pytest.raises(StateConflict):
            await service.proposals.revise(proposal, [ASKED], PAT)

    asyncio.run(story())
    told = [(line.getMessage(), line.actor) for line in caplog.records if line.change == "edit_refused"]
    assert told == [("Approval refused: StateConflict", "ed"), ("Proposal refused: StateConflict", "pat")]


def test_what_another_server_has_let_expire_or_had_revised_is_left_alone() -> None:
    async def story() -> None:
        service = FakeService()
        ended, revised = await proposed(service), await proposed(service, prompt="Where?")
        behind = other_server(service)
        service.now_s += 31 * proposals.DAY_S
        await service.proposals.revise(revised, [replace(ASKED, prompt="Where?")], PAT)
        await service.proposals.expire()
        revision = service.revision
        await behind.expire()
        states = [service.records.ledger.approval.proposal(each).state for each in (ended, revised)]
        assert states == [ProposalState.EXPIRED, ProposalState.PENDING]
        assert service.records.log.head() == revision

    asyncio.run(story())


def test_revisions_are_bounded_as_proposals_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MOST_PENDING", 1)

    async def story() -> None:
        service = FakeService()
        first = await proposed(service)
        await service.proposals.send_back(first, ED)
        second = await proposed(service, prompt="Where?")
        with pytest.raises(QueueFull):
            await service.proposals.revise(first, [ASKED], PAT)
        assert (await service.proposals.revise(second, [replace(ASKED, prompt="When?")], PAT)).proposal

    asyncio.run(story())


def test_proposals_that_come_at_once_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MOST_PENDING", 1)

    async def story() -> None:
        service = FakeService()
        both = (proposed(service, prompt=f"{word}?") for word in ("Who", "Where"))
        found = await asyncio.gather(*both, return_exceptions=True)
        assert [type(each) for each in found] == [str, QueueFull]
        assert len(service.records.ledger.approval.pending()) == 1

    asyncio.run(story())


def test_what_is_revised_just_then_is_not_sent_back_unread() -> None:
    async def story() -> None:
        service = FakeService()
        proposal_id, records = await proposed(service), service.records
        before = records.ledger.approval.proposal(proposal_id)
        async with records.writing:
            sending = asyncio.create_task(service.proposals.send_back(proposal_id, ED, records.revision))
            await asyncio.sleep(0)
            revised = ProposalRevised(
                revision=records.revision + 1,
                at_s=0.0,
                origin=PAT,
                proposal_id=proposal_id,
                edits=before.edits,
                batch=False,
                expires_at_s=before.expires_at_s,
            )
            await records.append(revised)
        with pytest.raises(PreconditionFailed):
            await sending
        assert records.ledger.approval.proposal(proposal_id).state is ProposalState.PENDING

    asyncio.run(story())
