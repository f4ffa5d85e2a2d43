"""Approval by a second person: edits that need one are proposed, then approved, sent back, revised or withdrawn.

A proposal is verified when it is made, as a preview, and again when it is published. Does not import torch.
"""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from app.domain.approval import OPEN, Proposal, ProposalState
from app.domain.edit import EditRequest
from app.domain.errors import (
    EditRejected,
    Forbidden,
    InvalidRequest,
    PreconditionFailed,
    QueueFull,
    ScopeConflict,
    StateConflict,
)
from app.domain.events import (
    EditProposed,
    Event,
    Origin,
    ProposalExpired,
    ProposalItem,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
)
from app.domain.keys import Role
from app.service.idempotency import already_live, digest_of, existing, known_under
from app.service.log_lines import refusals
from app.service.records import Clock, Records
from app.service.supersession import others_of_the_prompt, superseded_by, theirs
from app.service.views import EditResults, OnProgress, kept_report, silent

MOST_PENDING = 1_000
DAY_S = 86_400.0


class Make(Protocol):
    """A function that makes edits, or previews of them."""

    async def __call__(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool,
        batch: bool,
        dry_run: bool,
        tell: OnProgress,
        read: int | None,
    ) -> EditResults: ...


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

    async def propose(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool = True,
        batch: bool = False,
        tell: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        """Propose edits. A request that is already satisfied is answered as such; any other is previewed and waits for
        a second person.

        Raises EditRejected or ScopeConflict for edits that could not be published as they are, and QueueFull.
        """
        _check_whole(atomic)
        origin = _marked(origin, digest_of(requests, batch))
        with self._working():
            if found := self._known(origin) or already_live(self._records, requests):
                return found
            proposal_id = f"pr_{uuid.uuid4().hex[:16]}"
            self._check_room(proposal_id)
            await self._write(EditProposed, proposal_id, requests, origin, batch=batch, tell=tell, read=read)
            return self._known(origin) or self._result_of(proposal_id)  # a repetition may have been first

    async def revise(
        self,
        proposal_id: str,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool = True,
        batch: bool = False,
        tell: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        """Replace the contents of a proposal, which waits again. Raises the errors of `propose`, Forbidden and
        StateConflict."""
        _check_whole(atomic)
        origin = _marked(origin, digest_of(requests, batch, proposal_id))
        with self._working(), refusals("Proposal", requests, origin, self._records.ledger.keys):
            if found := self._known(origin):
                return found
            for request in requests:
                self._check_reason(request.reason or origin.reason)
            self._check_own(proposal_id, origin, "revise")
            self._records.ledger.approval.check_revision(proposal_id)
            self._check_room(proposal_id)
            await self._write(ProposalRevised, proposal_id, requests, origin, batch=batch, tell=tell, read=read)
            return self._result_of(proposal_id)

    async def withdraw(self, proposal_id: str, origin: Origin) -> Proposal:
        """Withdraw one's own proposal. Raises UnknownProposal, StateConflict, and Forbidden for another person's."""
        with self._working():
            self._check_reason(origin.reason)
            self._check_own(proposal_id, origin, "withdraw")
            await self._end(ProposalWithdrawn, proposal_id, origin)
        return self._records.ledger.approval.proposal(proposal_id)

    # -- for the second person

    async def send_back(self, proposal_id: str, origin: Origin, read: int | None = None) -> Proposal:
        """Send a proposal back with a reason, which its proposer sees. Raises InvalidRequest without a reason."""
        if not (origin.reason or "").strip():
            raise InvalidRequest("`reason` is missing: say to its proposer why the proposal is sent back.")
        with self._working():
            self._check_other(proposal_id, origin)
            self._check_unchanged(proposal_id, read)
            await self._end(ProposalReturned, proposal_id, origin)
        return self._records.ledger.approval.proposal(proposal_id)

    async def approve(
        self, proposal_id: str, origin: Origin, *, tell: OnProgress = silent, read: int | None = None
    ) -> EditResults:
        """Publish a proposal after verifying it again. `read` is the revision at which the approver read it.

        Raises Forbidden for one's own proposal, StateConflict for one that does not wait, PreconditionFailed if it, or
        an edit of its question, has changed since it was read, and the errors of making an edit.
        """
        proposal = self._records.ledger.approval.proposal(proposal_id)
        asked = [each.request for each in proposal.edits]
        with self._working(), refusals("Approval", asked, origin, self._records.ledger.keys):
            self._check_other(proposal_id, origin)
            if proposal.state is ProposalState.PUBLISHED and proposal.history[-1][3].key_id == origin.key_id:
                made = tuple(existing(self._records, edit_id) for edit_id in proposal.edit_ids)
                return EditResults(results=made, revision=proposal.revision)
            for request in asked:
                self._check_reason(origin.reason or request.reason)
            first = {name: getattr(proposal.origin, name) for name in ("actor", "key_id", "role")}
            proposer = Proposer(proposal_id=proposal_id, revision=proposal.proposed[0], **first)
            self._records.ledger.approval.check_approval(proposer)
            self._check_unchanged(proposal_id, read)
            requests = self._left(proposal)
            if any(request.force for request in requests) and origin.role != Role.ADMIN:
                raise Forbidden("The proposal overrides verification (`force`): it takes an admin to approve it.")
            how: dict[str, Any] = {"atomic": True, "batch": proposal.batch, "dry_run": False, "tell": tell}
            try:
                made_now = await self._make(requests, replace(origin, proposer=proposer), **how, read=proposal.revision)
            except PreconditionFailed as error:
                raise PreconditionFailed(
                    "An edit of its question has changed since it was proposed: send it back, so that its proposer "
                    "looks at what stands now.",
                    **error.details,
                ) from error
            if proposal.state in OPEN:
                raise StateConflict("What it asks for stands already, so there is nothing to publish: send it back.")
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

    def _result_of(self, proposal_id: str) -> EditResults:
        proposal = self._records.ledger.approval.proposal(proposal_id)
        return EditResults(results=(), revision=self._records.revision, proposal=proposal)

    async def _write(
        self,
        kind: type[EditProposed] | type[ProposalRevised],
        proposal_id: str,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        batch: bool,
        tell: OnProgress,
        read: int | None,
    ) -> None:
        """Preview the edits, then append the event: edits that could not be published are not proposed."""
        self._check_standing(requests, origin, read)
        asked = replace(origin, idempotency_key=None)
        preview = await self._make(requests, asked, atomic=True, batch=batch, dry_run=True, tell=tell, read=read)
        edits = tuple(
            _proposed(request, result.view) for request, result in zip(requests, preview.results, strict=True)
        )

        def proposed() -> Event | None:
            ledger = self._records.ledger
            if self._records.done_under(origin) is not None:
                return None
            self._check_standing(requests, origin, read)  # others have published while it was previewed
            self._check_room(proposal_id)
            now_s = self._clock()
            event = kind(
                revision=ledger.revision + 1,
                at_s=now_s,
                origin=origin if origin.reason is not None else replace(origin, reason=_reason_of(requests)),
                proposal_id=proposal_id,
                edits=edits,
                batch=batch,
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

    def _check_standing(self, requests: Sequence[EditRequest], origin: Origin, read: int | None) -> None:
        """Raise unless the requests may take the place of the edits of their prompts that stand now."""
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
    ) -> None:
        def ended() -> Event | None:
            ledger = self._records.ledger
            if self._records.done_under(origin) is not None:
                return None
            if kind is ProposalExpired and not ledger.approval.proposal(proposal_id).is_due(self._clock()):
                return None
            event = kind(revision=ledger.revision + 1, at_s=self._clock(), origin=origin, proposal_id=proposal_id)
            ledger.approval.check(event)
            return event

        await self._records.write(ended)

    def _left(self, proposal: Proposal) -> list[EditRequest]:
        """The requests to make now: the time until an edit ends has been running since it was proposed."""
        gone_s = max(0.0, self._clock() - proposal.proposed[1])
        found = []
        for each in proposal.edits:
            left_s = None if each.request.expires_in_s is None else each.request.expires_in_s - gone_s
            if left_s is not None and left_s <= 0:
                raise StateConflict("Its edit would have ended by now: send it back, so that its proposer revises it.")
            found.append(replace(each.request, expires_in_s=left_s))
        return found

    def _check_own(self, proposal_id: str, origin: Origin, verb: str) -> None:
        proposal = self._records.ledger.approval.proposal(proposal_id)
        if proposal.origin.key_id != origin.key_id:
            raise Forbidden(f"The proposal is {proposal.origin.actor}'s: only who made it may {verb} it.")

    def _check_other(self, proposal_id: str, origin: Origin) -> None:
        """Check that the decision is another person's: nobody decides on their own proposal, whatever name stands
        beside their key."""
        proposal = self._records.ledger.approval.proposal(proposal_id)
        if origin.key_id is None or proposal.origin.key_id == origin.key_id:
            raise Forbidden(
                "It takes a second person, with another key, to decide on a proposal. "
                "See /help/operation#a-second-person."
            )

    def _check_unchanged(self, proposal_id: str, read: int | None) -> None:
        proposal = self._records.ledger.approval.proposal(proposal_id)
        if read is not None and proposal.revision > read:
            raise PreconditionFailed(
                f"The proposal {proposal_id} was changed at revision {proposal.revision}, after you read it: read it "
                f"again.",
                revision=proposal.revision,
            )


def _check_whole(atomic: bool) -> None:
    if not atomic:
        raise InvalidRequest("A batch is proposed, and approved, as a whole: leave `atomic` out, or send each alone.")


def _marked(origin: Origin, digest: str) -> Origin:
    """The origin with the digest of what is asked for, if it has an idempotency key."""
    return origin if origin.idempotency_key is None else replace(origin, digest=digest)


def _proposed(request: EditRequest, view: Any) -> ProposalItem:
    """The proposed edit, with its preview's results. Raises EditRejected or ScopeConflict if it could not be
    published."""
    edit, report = view.edit, view.edit.report
    if report.get("conflicts"):
        raise ScopeConflict(
            f"Other edits are in the way: {', '.join(report['conflicts'])}. Name them in `supersede`, or tell the "
            "edits apart by a `subject`, `counter_examples` or `aliases`.",
            conflicts=list(report["conflicts"]),
        )
    if not report.get("would_commit", True):
        raise EditRejected(
            f"The edit was fitted but did not hold when tried, so nothing was proposed: "
            f"{'; '.join(report.get('problems', []))}. Reword the target or give paraphrases.",
            report={request.prompt: kept_report(report)},
        )
    return ProposalItem(
        request=request, editor=edit.editor, before=edit.before, after=edit.after, report=kept_report(report)
    )


def _reason_of(requests: Sequence[EditRequest]) -> str | None:
    reasons = {request.reason for request in requests}
    return reasons.pop() if len(reasons) == 1 else None
