"""The route that promotes edits from one namespace into another, where each is made like any other edit."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Header

from app.api.accepted import job_accepted, prefers_job, proposal_accepted
from app.api.deps import Asker, Holder, Read, because
from app.api.metrics import Metrics
from app.api.openapi import raises
from app.api.routes.edits import MAKING
from app.api.schemas.edits import MadeEdits
from app.api.schemas.jobs import JobOut, made_of
from app.api.schemas.promote import PromoteBody
from app.api.schemas.proposals import ProposalOut
from app.domain.errors import UnknownNamespace
from app.domain.keys import check_reach
from app.service.batch_results import none_of
from app.service.promotion import promotable, promoted
from app.service.views import EditResults, OnProgress, silent

if TYPE_CHECKING:
    from app.service.service import Service

EXAMPLES = {
    "all": {
        "summary": "All live edits, previewed",
        "value": {"from_namespace": "staging", "to_namespace": "production", "dry_run": True},
    },
    "these": {
        "value": {
            "from_namespace": "staging",
            "to_namespace": "production",
            "ids": ["ed_0123456789abcdef"],
            "reason": "Release 12",
        }
    },
}
_MAKING = {**MAKING, 404: raises(UnknownNamespace)[404]}


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.post(
        "/edits/promote",
        response_model=MadeEdits,
        responses={
            202: {
                "description": "A proposal, where a second person is needed; with `Prefer: respond-async` a job",
                "model": JobOut | ProposalOut,
            },
            **_MAKING,
        },
        summary="Promote edits into another namespace",
    )
    async def promote(
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[PromoteBody, Body(openapi_examples=EXAMPLES)],
        prefer: Annotated[str, Header(description="`respond-async`: answer 202 at once, with a job.")] = "",
    ) -> Any:
        """Each edit is fitted and verified in the other namespace and committed on its own; `promoted_from` of an edit,
        and of the log's entry, names the edit that it was made from. Edits that were refused are listed under
        `failures`, whose `index` is the position among `ids`, or among the live edits, oldest first."""
        check_reach(holder, body.from_namespace, body.to_namespace)
        source, to, ledger = body.from_namespace, body.to_namespace, service.records.ledger
        origin = because(asker, None, "promote", body)
        entries = promotable(ledger, source, to, body.ids, service.configured, origin)
        requests = [promoted(entry, to, body.reason, service.records.now_s) for entry in entries]

        async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
            how: dict[str, Any] = {"dry_run": body.dry_run, "on_progress": on_progress, "read": read}
            waits = not body.dry_run and service.policies.proposes([to], origin)  # a proposal is decided as a whole
            results = await service.edit(requests, origin, atomic=waits, batch=True, **how)
            metrics.edited(results, dry_run=body.dry_run)
            for failure in results.failures:
                failure.error.details["promoted_from"] = requests[failure.index].promoted_from
                metrics.edit_failed(failure.error, 1)
            if not results.results and results.proposal is None:
                raise none_of(results.failures)
            return results, True, body.dry_run

        if prefers_job(prefer):
            job = service.jobs.start(work, previews=[to] if body.dry_run else (), namespaces=[source, to])
            return job_accepted(job)
        answer = made_of(*await work(silent))
        if isinstance(answer, ProposalOut):
            return proposal_accepted(answer)
        return answer

    return router
