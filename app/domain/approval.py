"""Approval: which namespaces need a second person, and what waits for one. A pure fold, beside that of edits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.edit import EditRequest
from app.domain.entry import Entry
from app.domain.errors import StateConflict, UnknownProposal
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditProposed,
    Event,
    Origin,
    PolicySet,
    ProposalEvent,
    ProposalExpired,
    ProposalItem,
    ProposalReturned,
    ProposalRevised,
    ProposalWithdrawn,
    Proposer,
    named,
)


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
_CONTENT = (EditProposed.kind, ProposalRevised.kind)
SUPERSEDED = "proposal_superseded"
"""The kind under which a proposal's history has the event of another proposal, or of an edit, that superseded it."""
_ENDS: Mapping[type[ProposalEvent], ProposalState] = {
    ProposalReturned: ProposalState.RETURNED,
    ProposalWithdrawn: ProposalState.WITHDRAWN,
    ProposalExpired: ProposalState.EXPIRED,
}
_Question = tuple[str, str]
"""(namespace, prompt without blanks at its ends)."""


@dataclass(slots=True)
class Proposal:
    """An edit, or a batch, that waits or has waited for a second person."""

    id: str
    edits: tuple[ProposalItem, ...]
    batch: bool
    expires_at_s: float
    state: ProposalState = ProposalState.PENDING
    edit_ids: tuple[str, ...] = ()
    """The edits that were published of it."""
    superseded_by: str | None = None
    """The edit, or the proposal, that took its question over."""
    history: list[tuple[int, str, float, Origin]] = field(default_factory=list)
    """(revision, event kind or SUPERSEDED, Unix time, origin) of every event that touched it."""

    @property
    def origin(self) -> Origin:
        """The origin of its first event, which names the proposer."""
        return self.history[0][3]

    @property
    def revision(self) -> int:
        """The revision of the newest event about it."""
        return self.history[-1][0]

    @property
    def proposed(self) -> tuple[int, float]:
        """(revision, Unix time) of the event that made it what it is."""
        return next((at, at_s) for at, kind, at_s, _ in reversed(self.history) if kind in _CONTENT)

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
        return [each for each in self.proposals.values() if each.state is ProposalState.PENDING]

    def due(self, now_s: float) -> list[str]:
        """Ids of open proposals whose time has run out."""
        return [each.id for each in self.proposals.values() if each.is_due(now_s)]

    def made_at(self, revision: int) -> Proposal | None:
        """The proposal that the event of this revision is about; one that the event only superseded is not meant."""
        found = (
            p for p in self.proposals.values() for at, kind, *_ in p.history if at == revision and kind != SUPERSEDED
        )
        return next(found, None)

    # -- folding

    def check(self, event: Event) -> None:
        """Raises UnknownProposal or StateConflict for an event that a proposal's state forbids."""
        match event:
            case EditProposed(proposal_id=proposal_id):
                if proposal_id in self.proposals:
                    raise StateConflict(f"The proposal {proposal_id} is in the log already.")
            case ProposalRevised(proposal_id=proposal_id):
                self.check_revision(proposal_id)
            case ProposalReturned():
                self._allowed(event.proposal_id, "send back", frozenset({ProposalState.PENDING}))
            case ProposalWithdrawn():
                self._allowed(event.proposal_id, "withdraw", OPEN)
            case ProposalExpired():
                self._allowed(event.proposal_id, "expire", OPEN)
            case Event(origin=Origin(proposer=proposer)) if proposer is not None:
                self.check_approval(proposer)
            case _:
                pass

    def check_revision(self, proposal_id: str) -> None:
        """Raises UnknownProposal, or StateConflict for one that can no longer be revised."""
        self._allowed(proposal_id, "revise", REVISABLE)

    def check_approval(self, proposer: Proposer) -> None:
        """Raises UnknownProposal, or StateConflict for one that does not wait as it was read."""
        found = self._allowed(proposer.proposal_id, "approve", frozenset({ProposalState.PENDING}))
        if found.proposed[0] != proposer.revision:
            raise StateConflict(f"The proposal {found.id} was revised meanwhile: read it again.", proposal_id=found.id)

    def apply(self, event: PolicySet | ProposalEvent) -> None:
        """An event that `check` lets through."""
        if isinstance(event, PolicySet):
            self.policies[event.namespace] = event.second_person
            return
        if isinstance(event, EditProposed | ProposalRevised):
            found = self.proposals.setdefault(event.proposal_id, Proposal(event.proposal_id, (), False, 0.0))
            found.edits, found.batch, found.expires_at_s = event.edits, event.batch, event.expires_at_s
            found.state, found.superseded_by = ProposalState.PENDING, None
            found.history.append(_item(event))
            mine = [p for p in self._open() if p is not found and _same_person(p.origin, found.origin)]
            self._supersede(mine, dict.fromkeys(found.questions, found.id), event)
            return
        found = self.proposals[event.proposal_id]
        found.state = _ENDS[type(event)]
        found.history.append(_item(event))

    def note(self, event: Event, entries: Mapping[str, Entry]) -> None:
        """Note published edits: they answer the proposal that they were made from, and supersede other proposals of the
        same question."""
        if not isinstance(event, EditCommitted | BatchCommitted):
            return
        ids = named(event)
        if event.origin.proposer is not None:
            found = self.proposals[event.origin.proposer.proposal_id]
            found.state, found.edit_ids = ProposalState.PUBLISHED, ids
            found.history.append(_item(event))
        if self.proposals:
            self._supersede(self._open(), {_question(entries[i].edit.request): i for i in ids}, event)

    def _open(self) -> list[Proposal]:
        return [each for each in self.proposals.values() if each.state in OPEN]

    @staticmethod
    def _supersede(proposals: Iterable[Proposal], taken: Mapping[_Question, str], event: Event) -> None:
        for each in proposals:
            by = next((taken[question] for question in sorted(each.questions) if question in taken), None)
            if by is not None:
                each.state, each.superseded_by = ProposalState.SUPERSEDED, by
                each.history.append((event.revision, SUPERSEDED, event.at_s, event.origin))

    def _allowed(self, proposal_id: str, verb: str, states: frozenset[ProposalState]) -> Proposal:
        found = self.proposal(proposal_id)
        if found.state not in states:
            raise StateConflict(
                f"Cannot {verb} the proposal {proposal_id}: it is {found.state}. GET /proposals/{proposal_id} shows "
                f"its history.",
                proposal_id=proposal_id,
                state=found.state.value,
            )
        return found


def _item(event: Event) -> tuple[int, str, float, Origin]:
    return event.revision, event.kind, event.at_s, event.origin


def _question(request: EditRequest) -> _Question:
    return request.namespace, request.prompt.strip()


def _same_person(one: Origin, other: Origin) -> bool:
    return (one.key_id, one.actor) == (other.key_id, other.actor)
