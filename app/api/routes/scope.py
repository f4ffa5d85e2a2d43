"""Routes about the scope of edits: retuning it, the probes of a namespace, and the prompts that previews look at."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Query, Request

from app.api.deps import Asker, Holder, Read, because
from app.api.job_stream import WATCHED, is_watched, watched
from app.api.openapi import raises
from app.api.routes.edits import Id, check_edits, check_force
from app.api.schemas.base import Namespace
from app.api.schemas.edits import EditOut
from app.api.schemas.scope import (
    ForgottenOut,
    ProbeAnswerOut,
    ProbesBody,
    ProbesCheckBody,
    ProbesCheckOut,
    ProbesOut,
    RecentOut,
    RetuneBody,
    ScopeBody,
    ScopeOut,
    ScopesOut,
    TrafficBody,
)
from app.api.schemas.server import ExamOut
from app.domain.errors import (
    EditRejected,
    LostRace,
    PreconditionFailed,
    QueueFull,
    RequestCancelled,
    ScopeConflict,
    StateConflict,
    StoreUnavailable,
    UnknownEdit,
)
from app.domain.keys import Key, check_reach
from app.engine.controls import shown
from app.service.protected_questions import protected_answers
from app.service.views import EditResult, EditResults, OnProgress

if TYPE_CHECKING:
    from app.service.service import Service

RETUNE = {
    "wider": {"value": {"widen": 1.2, "paraphrases": ["Lumen is led by"], "reason": "Missed in ticket 4713"}},
    "narrower": {"value": {"counter_examples": ["Who led Lumen in 1990?"], "reason": "Ticket 4714"}},
}
PROBES = {"two": {"value": {"prompts": ["The capital of France is", "Who are you?"], "reason": "House rules"}}}
CHECK = {"those that are set": {"value": {"namespace": "default"}}}
SCOPE = {"two": {"value": {"prompts": ["Who leads Lumen?", "Who led Lumen in 1990?"]}}}
TRAFFIC = {"two": {"value": {"prompts": ["Where is my parcel?", "I forgot my password"], "namespace": "support"}}}
ERRORS = raises(
    UnknownEdit,
    StateConflict,
    ScopeConflict,
    PreconditionFailed,
    EditRejected,
    QueueFull,
    StoreUnavailable,
    LostRace,
    RequestCancelled,
    body=True,
)
CHANGES = raises(StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True)


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.patch(
        "/edits/{edit_id}",
        response_model=EditOut,
        responses={200: {"description": "Changed; or events of the job", "content": WATCHED}, **ERRORS},
        summary="Widen or narrow an edit's scope",
    )
    async def retune(
        request: Request,
        edit_id: Id,
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[RetuneBody, Body(openapi_examples=RETUNE)],
    ) -> Any:
        """A new revision of the edit under the same id, verified like a new edit. What it has learned is kept if
        possible; `GET /edits/{id}` shows its history. With `Accept: text/event-stream` the answer is the events of a
        job."""
        check_edits(service, holder, [edit_id])
        if body.force:
            check_force(asker, body.reason)
        origin = because(asker, body.reason, edit_id, body)
        change = body.to_domain()

        async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
            view = await service.retune(edit_id, change, origin, read, on_progress)
            return EditResults(results=(EditResult(view=view, seconds={}),), revision=service.revision), False, False

        if is_watched(request):
            return watched(service.jobs, service.jobs.start(work, namespaces=_namespaces_of(service, edit_id)))
        return EditOut.of(await service.retune(edit_id, change, origin, read))

    @router.get("/probes", responses=raises(), summary="The probes of a namespace")
    async def probes(holder: Holder, namespace: Annotated[Namespace, Query()] = "default") -> ProbesOut:
        check_reach(holder, namespace)
        prompts = service.records.ledger.probes.get(namespace, ())
        return ProbesOut(namespace=namespace, prompts=shown(prompts), revision=service.revision)

    @router.put("/probes", responses=CHANGES, summary="Set the probes of a namespace")
    async def set_probes(
        asker: Asker, holder: Holder, body: Annotated[ProbesBody, Body(openapi_examples=PROBES)]
    ) -> ProbesOut:
        """Every edit of the namespace is tried on them before it goes live: one that changes an answer is refused."""
        check_reach(holder, body.namespace)
        origin = because(asker, body.reason, "probes", body)
        revision = await service.set_probes(body.namespace, body.prompts, origin)
        kept = service.records.ledger.probes[body.namespace]
        return ProbesOut(namespace=body.namespace, prompts=shown(kept), revision=revision)

    @router.post("/probes/check", responses=raises(RequestCancelled, QueueFull, body=True), summary="Ask the probes")
    async def check_probes(
        holder: Holder, body: Annotated[ProbesCheckBody, Body(openapi_examples=CHECK)]
    ) -> ProbesCheckOut:
        """Asks each probe with the namespace's live edits and without them, and shows which are answered differently,
        and by which edit. Nothing is changed, and the questions are not counted."""
        check_reach(holder, body.namespace)
        prompts = service.records.ledger.probes.get(body.namespace, ()) if body.prompts is None else body.prompts
        revision = service.revision
        answers = [ProbeAnswerOut.of(each) async for each in protected_answers(service, prompts, body.namespace)]
        changed = sum(each.changed for each in answers)
        return ProbesCheckOut(namespace=body.namespace, probes=answers, changed=changed, revision=revision)

    @router.post("/scope", responses=raises(RequestCancelled, body=True), summary="Find the edits that prompts ask for")
    async def scope(holder: Holder, body: Annotated[ScopeBody, Body(openapi_examples=SCOPE)]) -> ScopesOut:
        """Decides as `POST /generate` does, without answering: the edit, or the nearest one, with the reason in
        words."""
        check_reach(holder, body.namespace)
        decisions = await service.scope_of(body.prompts, body.namespace)
        return ScopesOut(
            decisions=[ScopeOut.of(prompt, *hits) for prompt, hits in zip(body.prompts, decisions, strict=True)],
            false_hits=service.false_hits(body.namespace),
            revision=service.revision,
        )

    @router.get("/scope/exam", responses=raises(), summary="Read the judge's result in its exam")
    async def exam() -> ExamOut:
        """The judge (`ERRATA_JUDGE`) decides questions that the scope is uncertain of, once it has passed an exam on
        built-in pairs of questions. The answer lists the pairs that it got wrong."""
        return ExamOut.of(service.examined_judge.view())

    @router.post("/recent", responses=raises(RequestCancelled, body=True), summary="Add recent prompts")
    async def hear(holder: Holder, body: Annotated[TrafficBody, Body(openapi_examples=TRAFFIC)]) -> RecentOut:
        """Previews look at these prompts, and questions are weighed in contrast to them. If no edit should answer them
        (`others`), the bounds of edits made from then on are calibrated on them."""
        check_reach(holder, body.namespace)
        service.recent.add_all(body.namespace, body.prompts, others=body.others)
        return _kept(service, holder)

    @router.get("/recent", responses=raises(), summary="Count the recent prompts that are kept")
    async def recent(holder: Holder) -> RecentOut:
        """Prompts are kept only if the operator enabled it (`ERRATA_RECENT_PROMPTS`), in this server's memory."""
        return _kept(service, holder)

    @router.delete("/recent", responses=raises(), summary="Delete recent prompts")
    async def forget(holder: Holder, namespace: Annotated[Namespace | None, Query()] = None) -> ForgottenOut:
        """Previews that were made as jobs quote these prompts and are deleted with them."""
        check_reach(holder, namespace)
        forgotten = service.recent.forget(namespace)
        await service.jobs.forget_previews(namespace)
        return ForgottenOut(forgotten=forgotten)

    return router


def _kept(service: "Service", holder: Key | None) -> RecentOut:
    counts = {name: count for name, count in service.recent.counts().items() if holder is None or holder.opens(name)}
    return RecentOut(kept=counts, at_most=service.recent.most)


def _namespaces_of(service: "Service", edit_id: str) -> list[str]:
    entry = service.records.ledger.entries.get(edit_id)
    return [] if entry is None else [entry.edit.request.namespace]
