"""Request and response bodies for proposals and for the policy that requires them. Independent of the service."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.base import Incoming, Namespace, Outgoing, Reason, utc
from app.api.schemas.corrections import MAX_NAME_CHARS
from app.api.schemas.edits import HistoryOut
from app.domain.approval import Proposal, ProposalState
from app.domain.events import ProposalItem
from app.engine.controls import plain, shown


class ProposedEdit(Outgoing):
    """An edit that waits for a second person, with the results of its preview."""

    namespace: str
    prompt: str
    target: str
    subject: str | None
    aliases: list[str]
    paraphrases: list[str]
    counter_examples: list[str]
    probes: list[str]
    widen: float = Field(description="The factor on the odds at which a question counts as the same.")
    editor: str
    preset: str
    before: str = Field(description="The answer to the prompt when the edit was proposed.")
    after: str = Field(description="The answer to the prompt in the preview.")
    report: dict[str, Any]
    reason: str | None
    expires_in: float | None = Field(description="Seconds until the edit ends by itself, from the proposal on.")
    supersede: list[str]
    force: bool
    metadata: dict[str, Any]

    @classmethod
    def of(cls, proposed: ProposalItem) -> "ProposedEdit":
        request = proposed.request
        return cls.like(
            proposed,
            request,
            prompt=plain(request.prompt),
            paraphrases=shown(request.paraphrases),
            counter_examples=shown(request.counter_examples),
            probes=shown(request.probes),
            widen=1.0 if request.widen is None else request.widen,
            report=shown(proposed.report),
            expires_in=request.expires_in_s,
        )


class ProposalOut(Outgoing):
    """An edit, or a batch, that waits or has waited for a second person."""

    id: str = Field(examples=["pr_0123456789abcdef"])
    revision: int = Field(description="Revision of the newest event that touched it.")
    state: ProposalState
    batch: bool
    edits: list[ProposedEdit]
    actor: str = Field(description="The person who proposed it.")
    key_id: str | None
    reason: str | None
    proposed_at: datetime = Field(description="When it was proposed, or revised last.")
    expires_at: datetime = Field(description="When it ends if nobody has decided on it by then.")
    edit_ids: list[str] = Field(description="The edits that were published of it.")
    superseded_by: str | None = Field(description="The edit, or the proposal, that took its question over.")
    history: list[HistoryOut]

    @classmethod
    def of(cls, proposal: Proposal) -> "ProposalOut":
        return cls.like(
            proposal,
            proposal.origin,
            edits=[ProposedEdit.of(each) for each in proposal.edits],
            proposed_at=utc(proposal.proposed.at_s),
            history=[HistoryOut.of(each) for each in proposal.history],
        )


class ProposalsQuery(BaseModel):
    """Filters of GET /proposals. A filter that is left out matches every proposal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: ProposalState | None = None
    namespace: Annotated[str | None, Field(max_length=MAX_NAME_CHARS)] = None
    actor: Annotated[
        str | None, Field(max_length=200, description="The person who proposed it, or the id of their key.")
    ] = None
    limit: int = Field(default=50, ge=1, le=500)
    cursor: Annotated[str | None, Field(max_length=64)] = Field(
        default=None, description="`next_cursor` of the page before."
    )


class ProposalsOut(Outgoing):
    """Proposals, newest first."""

    proposals: list[ProposalOut]
    pending: int = Field(description="Proposals in all that wait for a second person.")
    next_cursor: str | None

    @classmethod
    def of(cls, proposals: Sequence[Proposal], pending: int, next_cursor: str | None) -> "ProposalsOut":
        return cls(proposals=[ProposalOut.of(each) for each in proposals], pending=pending, next_cursor=next_cursor)


class ReturnBody(Incoming):
    """The reason for sending a proposal back; its proposer sees it."""

    reason: Annotated[Reason, Field(min_length=1)]


class PolicyBody(Incoming):
    """The policy of a namespace: if `second_person` is true, each of its edits needs a second person to approve it."""

    second_person: bool
    namespace: Namespace = "default"
    reason: Reason | None = None


class PolicyOut(Outgoing):
    namespace: str
    second_person: bool
    revision: int
