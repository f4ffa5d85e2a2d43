"""Routes for proposals, which wait for a second person, and for the policy that requires one. Independent of the
editors."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from app.api.deps import Asker, Holder, Read, because
from app.api.metrics import Metrics
from app.api.openapi import raises
from app.api.routes.changes import Why
from app.api.routes.edits import requests_of
from app.api.schemas.base import Namespace
from app.api.schemas.corrections import EXAMPLES, BatchBody, OneOrBatch
from app.api.schemas.edits import MadeEdit, MadeEdits
from app.api.schemas.jobs import edits_made
from app.api.schemas.proposals import (
    PolicyBody,
    PolicyOut,
    ProposalOut,
    ProposalsOut,
    ProposalsQuery,
    ReturnBody,
)
from app.domain.approval import Proposal
from app.domain.errors import (
    EditRejected,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    LostRace,
    PreconditionFailed,
    QueueFull,
    RequestCancelled,
    ScopeConflict,
    StateConflict,
    StoreUnavailable,
    UnknownEdit,
    UnknownProposal,
)
from app.domain.keys import check_reach
from app.service.proposal_pages import ProposalFilter, page_of
from app.service.views import EditOptions

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["pr_0123456789abcdef"])]
DECIDING = (UnknownProposal, StateConflict, PreconditionFailed, Forbidden, StoreUnavailable, LostRace, RequestCancelled)
MAKING = (*DECIDING, EditRejected, IdempotencyMismatch, UnknownEdit, ScopeConflict, QueueFull)
POLICY = {"on": {"value": {"namespace": "support", "second_person": True, "reason": "Four eyes, ticket 12"}}}
RETURN = {"why": {"value": {"reason": "The source says April, not March"}}}


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["edits"])

    def reached(proposal_id: Id, holder: Holder) -> Proposal:
        """The proposal of the path. Raises UnknownProposal, and Forbidden for a namespace that the key does not
        open."""
        proposal = service.records.ledger.approval.proposal(proposal_id)
        check_reach(holder, *proposal.namespaces)
        return proposal

    @router.get("/proposals", responses=raises(), summary="List proposals, newest first")
    async def list_proposals(query: Annotated[ProposalsQuery, Query()], holder: Holder) -> ProposalsOut:
        """A key for some namespaces sees only the proposals whose edits are all of these."""
        if query.namespace is not None:
            check_reach(holder, query.namespace)
        own = None if holder is None or not holder.namespaces else frozenset(holder.namespaces)
        where = ProposalFilter(state=query.state, namespace=query.namespace, namespaces=own, actor=query.actor)
        ledger = service.records.ledger
        proposals, onwards = page_of(ledger, where, query.limit, query.cursor)
        waiting = ProposalFilter(namespaces=own)
        pending = sum(waiting.matches(each, ledger.keys) for each in ledger.approval.pending())
        return ProposalsOut.of(proposals, pending, onwards)

    @router.get("/proposals/{proposal_id}", responses=raises(UnknownProposal), summary="One proposal, with its history")
    async def one_proposal(proposal_id: Id, holder: Holder, response: Response) -> ProposalOut:
        """`ETag` is the proposal's revision, for use in `If-Match`."""
        proposal = reached(proposal_id, holder)
        response.headers["ETag"] = f'"{proposal.revision}"'
        return ProposalOut.of(proposal)

    @router.put("/proposals/{proposal_id}", responses=raises(*MAKING, body=True), summary="Revise your proposal")
    async def revise(
        proposal_id: Id,
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[OneOrBatch, Body(openapi_examples=EXAMPLES)],
    ) -> ProposalOut:
        """Replaces the proposed edits by a body of `POST /edit`. The proposal is previewed and waits again."""
        reached(proposal_id, holder)  # an unknown proposal is reported before errors in the body
        if body.dry_run:
            raise InvalidRequest("A proposal is previewed by POST /edit with `dry_run`: leave it out here.")
        batch = isinstance(body, BatchBody)
        atomic = not isinstance(body, BatchBody) or body.atomic
        requests = await asyncio.to_thread(requests_of, body, asker, service.answers.render)
        check_reach(holder, *(each.namespace for each in requests))
        options = EditOptions(atomic=atomic, batch=batch, read=read)
        results = await service.proposals.revise(proposal_id, requests, asker, options)
        assert results.proposal is not None
        return ProposalOut.of(results.proposal)

    @router.post(
        "/proposals/{proposal_id}/approve", responses=raises(*MAKING, body=True), summary="Publish somebody's proposal"
    )
    async def approve(
        proposal_id: Id, asker: Asker, holder: Holder, read: Read, body: Why = None
    ) -> MadeEdit | MadeEdits:
        """The edit is verified again and goes live; the log names both persons. With `If-Match` the proposal is
        published only if it has not changed since it was read (412 otherwise)."""
        reached(proposal_id, holder)
        origin = because(asker, None if body is None else body.reason, "approve", proposal_id)
        try:
            results = await service.proposals.approve(proposal_id, origin, read=read)
        except Exception as error:
            metrics.edit_failed(error, 1)
            raise
        metrics.edited(results, dry_run=False)
        return edits_made(results, service.records.ledger.approval.proposal(proposal_id).batch, dry_run=False)

    @router.post(
        "/proposals/{proposal_id}/return", responses=raises(*DECIDING, body=True), summary="Send a proposal back"
    )
    async def send_back(
        proposal_id: Id,
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[ReturnBody, Body(openapi_examples=RETURN)],
    ) -> ProposalOut:
        """The proposer sees the reason and can revise or withdraw the proposal."""
        reached(proposal_id, holder)
        origin = because(asker, body.reason, "return", proposal_id, body)
        return ProposalOut.of(await service.proposals.send_back(proposal_id, origin, read))

    @router.post(
        "/proposals/{proposal_id}/withdraw", responses=raises(*DECIDING, body=True), summary="Withdraw your proposal"
    )
    async def withdraw(proposal_id: Id, asker: Asker, holder: Holder, body: Why = None) -> ProposalOut:
        reached(proposal_id, holder)
        origin = because(asker, None if body is None else body.reason, "withdraw", proposal_id)
        return ProposalOut.of(await service.proposals.withdraw(proposal_id, origin))

    @router.get("/policy", responses=raises(), summary="Read whether edits of a namespace need a second person")
    async def policy(namespace: Annotated[Namespace, Query()] = "default") -> PolicyOut:
        needed = service.records.ledger.approval.needs_second_person((namespace,))
        return PolicyOut(namespace=namespace, second_person=needed, revision=service.revision)

    @router.put(
        "/policy",
        responses=raises(StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True),
        summary="Ask for a second person",
    )
    async def set_policy(asker: Asker, body: Annotated[PolicyBody, Body(openapi_examples=POLICY)]) -> PolicyOut:
        """While the policy is set, every edit of the namespace is proposed, including an admin's, and goes live when
        another key that may edit approves it. Rollbacks, disabling, enabling and the edit switch still take one
        person."""
        service.check_change(because(asker, body.reason))
        origin = because(asker, body.reason, "policy", body)
        revision = await service.policies.set(body.namespace, body.second_person, origin)
        return PolicyOut(namespace=body.namespace, second_person=body.second_person, revision=revision)

    return router
