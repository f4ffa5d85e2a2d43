"""Approval by a second person: edits that need one are proposed, then approved, sent back, revised or withdrawn.

A proposal is verified when it is made, as a preview, and again when it is published. Does not import torch.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from app.domain.approval import OPEN, Proposal, ProposalState
from app.domain.edit import EditRequest
from app.domain.errors import (
    Forbidden,
    InvalidRequest,
    PreconditionFailed,
    QueueFull,
    StateConflict,
)
from app.domain.events import (
    EditProposed,
    Event,
    Origin,
    ProposalExpired,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
)
from app.domain.keys import Role
from app.service.idempotency import already_live, digest_of, existing, known_under
from app.service.log_lines import refusals
from app.service.proposal_checks import (
    check_other,
    check_own,
    check_unchanged,
    common_reason,
    proposed_item,
    requests_now,
)
from app.service.records import Clock, Records
from app.service.supersession import others_of_the_prompt, superseded_by, theirs
from app.service.views import EditOptions, EditResults, OnProgress, silent

MOST_PENDING = 1_000
DAY_S = 86_400.0


Make = Callable[[Sequence[EditRequest], Origin, EditOptions], Awaitable[EditResults]]
"""A function that makes edits, or previews of them."""


class Proposals:
    """The use cases of proposals. `working` is entered while work is under way that a stop must wait for;
    `check_reason` raises if a change must give a reason; a proposal waits for `days` days."""

    def __init__(
        self,
        records: Records,
        make: Make,
        clock: Clock,
        working: Callable[[], AbstractContextManager[None]],
        check_reason: Callable[[str | None], None],
        days: float = 30.0,
    ) -> None:
        self._records, self._make, self._clock, self._working = records, make, clock, working
        self._check_reason, self._lasts_s = check_reason, days * DAY_S

    # -- for the proposer

    async def propose(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        """Propose edits. A request that is already satisfied is answered as such; any other is previewed and waits for
        a second person.

        Raises EditRejected or ScopeConflict for edits that could not be published as they are, and QueueFull.
        """
        _check_whole(options.atomic)
        origin = _marked(origin, digest_of(requests, options.batch))
        with self._working():
            if earlier := self._known(origin) or already_live(self._records, requests):
                return earlier
            proposal_id = f"pr_{uuid.uuid4().hex[:16]}"
            self._check_room(proposal_id)
            await self._write(EditProposed, proposal_id, requests, origin, options)
            return self._known(origin) or self._result_of(proposal_id)  # a repetition may have been first

    async def revise(
        self,
        proposal_id: str,
        requests: Sequence[EditRequest],
        origin: Origin,
        options: EditOptions = EditOptions(),  # noqa: B008 (it is frozen)
    ) -> EditResults:
        """Replace the contents of a proposal, which waits again. Raises the errors of `propose`, Forbidden and
        StateConflict."""
        _check_whole(options.atomic)
        origin = _marked(origin, digest_of(requests, options.batch, proposal_id))
        with self._working(), refusals("Proposal", requests, origin, self._records.ledger.keys):
            if earlier := self._known(origin):
                return earlier
            for request in requests:
                self._check_reason(request.reason or origin.reason)
            check_own(self._proposal(proposal_id), origin, "revise")
            self._records.ledger.approval.check_revision(proposal_id)
            self._check_room(proposal_id)
            await self._write(ProposalRevised, proposal_id, requests, origin, options)
            return self._result_of(proposal_id)

    async def withdraw(self, proposal_id: str, origin: Origin) -> Proposal:
        """Withdraw one's own proposal. Raises UnknownProposal, StateConflict, and Forbidden for another person's."""
        with self._working():
            self._check_reason(origin.reason)
            check_own(self._proposal(proposal_id), origin, "withdraw")
            await self._end(ProposalWithdrawn, proposal_id, origin)
        return self._proposal(proposal_id)

    # -- for the second person

    async def send_back(self, proposal_id: str, origin: Origin, read: int | None = None) -> Proposal:
        """Send a proposal back with a reason, which its proposer sees. Raises InvalidRequest without a reason."""
        if not (origin.reason or "").strip():
            raise InvalidRequest("`reason` is missing: say to its proposer why the proposal is sent back.")
        with self._working():
            check_other(self._proposal(proposal_id), origin)
            await self._end(ProposalReturned, proposal_id, origin, read)
        return self._proposal(proposal_id)

    async def approve(
        self, proposal_id: str, origin: Origin, *, on_progress: OnProgress = silent, read: int | None = None
    ) -> EditResults:
        """Publish a proposal after verifying it again. `read` is the revision at which the approver read it.

        Raises Forbidden for one's own proposal, StateConflict for one that does not wait, PreconditionFailed if it, or
        an edit of its question, has changed since it was read, and the errors of making an edit.
        """
        proposal = self._proposal(proposal_id)
        proposed = [each.request for each in proposal.edits]
        with self._working(), refusals("Approval", proposed, origin, self._records.ledger.keys):
            check_other(self._proposal(proposal_id), origin)
            if proposal.state is ProposalState.PUBLISHED and proposal.history[-1].origin.key_id == origin.key_id:
                results = tuple(existing(self._records, edit_id) for edit_id in proposal.edit_ids)
                return EditResults(results=results, revision=proposal.revision)
            for request in proposed:
                self._check_reason(origin.reason or request.reason)
            first = {name: getattr(proposal.origin, name) for name in ("actor", "key_id", "role")}
            proposer = Proposer(proposal_id=proposal_id, revision=proposal.proposed.revision, **first)
            self._records.ledger.approval.check_approval(proposer)
            check_unchanged(self._proposal(proposal_id), read)
            requests = requests_now(proposal, self._clock())
            if any(request.force for request in requests) and origin.role != Role.ADMIN:
                raise Forbidden("The proposal overrides verification (`force`): it takes an admin to approve it.")
            options = EditOptions(batch=proposal.batch, on_progress=on_progress, read=proposal.revision)
            try:
                made_now = await self._make(requests, replace(origin, proposer=proposer), options)
            except PreconditionFailed as error:
                raise PreconditionFailed(
                    "An edit of its question has changed since it was proposed: send it back for its proposer "
                    "to look at the edit as it is now.",
                    **error.details,
                ) from error
            if proposal.state in OPEN:
                raise StateConflict("What it asks for is live already, so there is nothing to publish: send it back.")
            return made_now

    # -- expiry

    async def expire(self) -> None:
        """Append an event for each proposal whose time has run out."""
        for proposal_id in self._records.ledger.approval.due(self._clock()):  # another server may be first
            await self._end(ProposalExpired, proposal_id, Origin(actor="errata", reason="expired"))

    # -- shared steps

    def _known(self, origin: Origin) -> EditResults | None:
        """The result of an earlier request under the same idempotency key, if there was one."""
        done = self._records.done_under(origin)
        proposal = None if done is None else self._records.ledger.approval.made_at(done.revision)
        if proposal is not None:
            return EditResults(results=(), revision=self._records.revision, proposal=proposal)
        return known_under(self._records, origin)

    def _proposal(self, proposal_id: str) -> Proposal:
        return self._records.ledger.approval.proposal(proposal_id)

    def _result_of(self, proposal_id: str) -> EditResults:
        return EditResults(results=(), revision=self._records.revision, proposal=self._proposal(proposal_id))

    async def _write(
        self,
        kind: type[EditProposed] | type[ProposalRevised],
        proposal_id: str,
        requests: Sequence[EditRequest],
        origin: Origin,
        options: EditOptions,
    ) -> None:
        """Preview the edits, then append the event: edits that could not be published are not proposed."""
        self._check_replaced(requests, origin, options.read)
        preview_origin = replace(origin, idempotency_key=None)
        preview = await self._make(requests, preview_origin, replace(options, dry_run=True))
        edits = tuple(
            proposed_item(request, result.view) for request, result in zip(requests, preview.results, strict=True)
        )

        def proposed() -> Event | None:
            ledger = self._records.ledger
            if self._records.done_under(origin) is not None:
                return None
            self._check_replaced(requests, origin, options.read)  # others have published while it was previewed
            self._check_room(proposal_id)
            now_s = self._clock()
            event = kind(
                revision=ledger.revision + 1,
                at_s=now_s,
                origin=origin if origin.reason is not None else replace(origin, reason=common_reason(requests)),
                proposal_id=proposal_id,
                edits=edits,
                batch=options.batch,
                expires_at_s=now_s + self._lasts_s,
            )
            ledger.approval.check(event)
            return event

        await self._records.write(proposed)

    def _check_room(self, proposal_id: str) -> None:
        """Raise QueueFull if as many other proposals wait as may."""
        if sum(each.id != proposal_id for each in self._records.ledger.approval.pending()) >= MOST_PENDING:
            raise QueueFull(
                f"{MOST_PENDING} proposals wait already: approve, send back or withdraw some of them first."
            )

    def _check_replaced(self, requests: Sequence[EditRequest], origin: Origin, read: int | None) -> None:
        """Raise unless the requests may take the place of the edits of their prompts that are live now."""
        ledger = self._records.ledger
        for request in requests:
            superseded_by(ledger, request)
            if others := others_of_the_prompt(ledger, request, origin, read):
                raise theirs(ledger, others)

    async def _end(
        self,
        kind: type[ProposalReturned] | type[ProposalWithdrawn] | type[ProposalExpired],
        proposal_id: str,
        origin: Origin,
        read: int | None = None,
    ) -> None:
        def ended() -> Event | None:
            ledger = self._records.ledger
            if self._records.done_under(origin) is not None:
                return None
            if kind is ProposalExpired and not ledger.approval.proposal(proposal_id).is_due(self._clock()):
                return None
            check_unchanged(ledger.approval.proposal(proposal_id), read)
            event = kind(revision=ledger.revision + 1, at_s=self._clock(), origin=origin, proposal_id=proposal_id)
            ledger.approval.check(event)
            return event

        await self._records.write(ended)


def _check_whole(atomic: bool) -> None:
    if not atomic:
        raise InvalidRequest("A batch is proposed, and approved, as a whole: leave `atomic` out, or send each alone.")


def _marked(origin: Origin, digest: str) -> Origin:
    """The origin with the digest of what is asked for, if it has an idempotency key."""
    return origin if origin.idempotency_key is None else replace(origin, digest=digest)
