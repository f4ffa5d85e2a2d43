"""Approval: which namespaces need a second person, and what waits for one. A pure fold, beside that of edits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain import events
from app.domain.edit import EditRequest
from app.domain.entry import Entry, Touch
from app.domain.errors import StateConflict, UnknownProposal


class ProposalState(StrEnum):
    """The state of a proposal. Only a pending one can be approved."""

    PENDING = "pending"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"
    PUBLISHED = "published"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


OPEN = frozenset({ProposalState.PENDING, ProposalState.RETURNED})
"""Somebody has yet to do something about it."""
REVISABLE = OPEN | {ProposalState.SUPERSEDED, ProposalState.EXPIRED}
_CONTENT = (events.EditProposed.kind, events.ProposalRevised.kind)
SUPERSEDED = "proposal_superseded"
"""The kind under which a proposal's history has the event of another proposal, or of an edit, that superseded it."""
_ENDS: Mapping[type[events.ProposalEvent], ProposalState] = {
    events.ProposalReturned: ProposalState.RETURNED,
    events.ProposalWithdrawn: ProposalState.WITHDRAWN,
    events.ProposalExpired: ProposalState.EXPIRED,
}
_Question = tuple[str, str]
"""(namespace, prompt without blanks at its ends)."""


@dataclass(slots=True)
class Proposal:
    """An edit, or a batch, that waits or has waited for a second person."""

    id: str
    edits: tuple[events.ProposalItem, ...]
    batch: bool
    expires_at_s: float
    state: ProposalState = ProposalState.PENDING
    edit_ids: tuple[str, ...] = ()
    """The edits that were published of it."""
    superseded_by: str | None = None
    """The edit, or the proposal, that took its question over."""
    history: list[Touch] = field(default_factory=list)
    """Every event that touched it, oldest first; the event of another edit or proposal under the kind SUPERSEDED."""

    @property
    def origin(self) -> events.Origin:
        """The origin of its first event, which names the proposer."""
        return self.history[0].origin

    @property
    def revision(self) -> int:
        """The revision of the newest event about it."""
        return self.history[-1].revision

    @property
    def proposed(self) -> Touch:
        """The event that made it what it is."""
        return next(touch for touch in reversed(self.history) if touch.kind in _CONTENT)

    def is_due(self, now_s: float) -> bool:
        """True if it waits beyond its time."""
        return self.state in OPEN and self.expires_at_s <= now_s

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.request.namespace for each in self.edits))

    @property
    def questions(self) -> frozenset[_Question]:
        return frozenset(_question(each.request) for each in self.edits)


@dataclass(slots=True)
class Approval:
    """Only `apply` and `note` change it; what `check` refuses leaves it as it was."""

    policies: dict[str, bool] = field(default_factory=dict)
    """Namespace -> whether its edits need a second person, where that was ever set."""
    proposals: dict[str, Proposal] = field(default_factory=dict)
    _open: dict[str, Proposal] = field(default_factory=dict)
    """The proposals in an open state, apart from the many more of a long log that are closed."""

    # -- reading

    def proposal(self, proposal_id: str) -> Proposal:
        try:
            return self.proposals[proposal_id]
        except KeyError:
            raise UnknownProposal(
                f"No proposal has the id {proposal_id!r}: GET /proposals lists the ids.", proposal_id=proposal_id
            ) from None

    def needs_second_person(self, namespaces: Iterable[str]) -> bool:
        return any(self.policies.get(name, False) for name in namespaces)

    def pending(self) -> list[Proposal]:
        return [each for each in self.open() if each.state is ProposalState.PENDING]

    def open(self) -> list[Proposal]:
        """The proposals about which somebody has yet to do something, oldest first."""
        return sorted(self._open.values(), key=lambda each: each.history[0].revision)

    def due(self, now_s: float) -> list[str]:
        """Ids of open proposals whose time has run out."""
        return [each.id for each in self.open() if each.is_due(now_s)]

    def made_at(self, revision: int) -> Proposal | None:
        """The proposal that the event of this revision is about; one that the event only superseded is not meant."""
        for proposal in self.proposals.values():
            if any(touch.revision == revision and touch.kind != SUPERSEDED for touch in proposal.history):
                return proposal
        return None

    # -- folding

    def check(self, event: events.Event) -> None:
        """Raises UnknownProposal or StateConflict for an event that a proposal's state forbids."""
        match event:
            case events.EditProposed(proposal_id=proposal_id):
                if proposal_id in self.proposals:
                    raise StateConflict(f"The proposal {proposal_id} is in the log already.")
            case events.ProposalRevised(proposal_id=proposal_id):
                self.check_revision(proposal_id)
            case events.ProposalReturned():
                self._allowed(event.proposal_id, "send back", frozenset({ProposalState.PENDING}))
            case events.ProposalWithdrawn():
                self._allowed(event.proposal_id, "withdraw", OPEN)
            case events.ProposalExpired():
                self._allowed(event.proposal_id, "expire", OPEN)
            case events.Event(origin=events.Origin(proposer=proposer)) if proposer is not None:
                self.check_approval(proposer)
            case _:
                pass

    def check_revision(self, proposal_id: str) -> None:
        """Raises UnknownProposal, or StateConflict for one that can no longer be revised."""
        self._allowed(proposal_id, "revise", REVISABLE)

    def check_approval(self, proposer: events.Proposer) -> None:
        """Raises UnknownProposal, or StateConflict for one that does not wait as it was read."""
        proposal = self._allowed(proposer.proposal_id, "approve", frozenset({ProposalState.PENDING}))
        if proposal.proposed.revision != proposer.revision:
            raise StateConflict(
                f"The proposal {proposal.id} was revised meanwhile: read it again.", proposal_id=proposal.id
            )

    def apply(self, event: events.PolicySet | events.ProposalEvent) -> None:
        """An event that `check` lets through."""
        if isinstance(event, events.PolicySet):
            self.policies[event.namespace] = event.second_person
            return
        if isinstance(event, events.EditProposed | events.ProposalRevised):
            proposal = self.proposals.setdefault(event.proposal_id, Proposal(event.proposal_id, (), False, 0.0))
            proposal.edits, proposal.batch, proposal.expires_at_s = event.edits, event.batch, event.expires_at_s
            proposal.history.append(Touch.of(event))
            self._turn(proposal, ProposalState.PENDING)
            mine = [p for p in self.open() if p is not proposal and _same_person(p.origin, proposal.origin)]
            self._supersede(mine, dict.fromkeys(proposal.questions, proposal.id), event)
            return
        proposal = self.proposals[event.proposal_id]
        proposal.history.append(Touch.of(event))
        self._turn(proposal, _ENDS[type(event)])

    def resume(self) -> None:
        """Find the open proposals among those of a snapshot."""
        self._open = {each.id: each for each in self.proposals.values() if each.state in OPEN}

    def note(self, event: events.Event, entries: Mapping[str, Entry]) -> None:
        """Note published edits: they answer the proposal that they were made from, and supersede other proposals of the
        same question."""
        if not isinstance(event, events.EditCommitted | events.BatchCommitted):
            return
        ids = events.named(event)
        if event.origin.proposer is not None:
            proposal = self.proposals[event.origin.proposer.proposal_id]
            proposal.edit_ids = ids
            proposal.history.append(Touch.of(event))
            self._turn(proposal, ProposalState.PUBLISHED)
        if self._open:
            self._supersede(self.open(), {_question(entries[i].edit.request): i for i in ids}, event)

    def _turn(self, proposal: Proposal, state: ProposalState, superseded_by: str | None = None) -> None:
        proposal.state, proposal.superseded_by = state, superseded_by
        if state in OPEN:
            self._open[proposal.id] = proposal
        else:
            self._open.pop(proposal.id, None)

    def _supersede(self, proposals: Iterable[Proposal], taken: Mapping[_Question, str], event: events.Event) -> None:
        for each in proposals:
            by = next((taken[question] for question in sorted(each.questions) if question in taken), None)
            if by is not None:
                self._turn(each, ProposalState.SUPERSEDED, by)
                each.history.append(Touch.of(event, SUPERSEDED))

    def _allowed(self, proposal_id: str, verb: str, states: frozenset[ProposalState]) -> Proposal:
        proposal = self.proposal(proposal_id)
        if proposal.state not in states:
            raise StateConflict(
                f"Cannot {verb} the proposal {proposal_id}: it is {proposal.state}. GET /proposals/{proposal_id} shows "
                f"its history.",
                proposal_id=proposal_id,
                state=proposal.state.value,
            )
        return proposal


def _question(request: EditRequest) -> _Question:
    return request.namespace, request.prompt.strip()


def _same_person(one: events.Origin, other: events.Origin) -> bool:
    return (one.key_id, one.actor) == (other.key_id, other.actor)
