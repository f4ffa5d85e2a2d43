"""The list of proposals: filtered, newest first, one page at a time. Does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.approval import Proposal, ProposalState
from app.domain.errors import InvalidRequest
from app.domain.keys import Key
from app.domain.ledger import Ledger
from app.service.edit_history import is_by


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalFilter:
    """A filter of proposals; a field of None matches any."""

    state: ProposalState | None = None
    namespace: str | None = None
    namespaces: frozenset[str] | None = None
    """The namespaces within which all of a proposal's edits must be."""
    actor: str | None = None

    def matches(self, proposal: Proposal, keys: Mapping[str, Key]) -> bool:
        if self.state is not None and proposal.state is not self.state:
            return False
        if self.namespace is not None and self.namespace not in proposal.namespaces:
            return False
        if self.namespaces is not None and not self.namespaces.issuperset(proposal.namespaces):
            return False
        return self.actor is None or is_by(proposal.origin, self.actor, keys)


def page_of(ledger: Ledger, where: ProposalFilter, limit: int, cursor: str | None) -> tuple[list[Proposal], str | None]:
    """One page of proposals, and the cursor of the next. Raises InvalidRequest for a cursor that no page gave."""
    known = list(ledger.approval.proposals.values())
    at = len(known)
    if cursor is not None:
        if not cursor.isdecimal() or int(cursor) > len(known):
            raise InvalidRequest("`cursor` is not one that this list gave: start again without it.")
        at = int(cursor)
    places = [place for place in range(at - 1, -1, -1) if where.matches(known[place], ledger.keys)]
    proposals = [known[place] for place in places[:limit]]
    return proposals, str(places[limit - 1]) if len(places) > limit else None
