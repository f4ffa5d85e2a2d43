"""Routes that make edits and show them. Independent of the editors: the layers below decide how an edit is made."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from app.api.accepted import job_accepted, prefers_job, proposal_accepted
from app.api.deps import Asker, Holder, Read
from app.api.invalid import detail_of, problems_of
from app.api.job_stream import WATCHED, is_watched, watched
from app.api.metrics import Metrics
from app.api.openapi import leads_to, raises
from app.api.schemas.corrections import (
    EXAMPLES,
    BatchBody,
    EditBody,
    EditItem,
    EditsQuery,
    OneOrBatch,
    Render,
    WrongItem,
)
from app.api.schemas.edits import EditDetail, EditOut, EditPage, MadeEdit, MadeEdits
from app.api.schemas.jobs import JobOut, made_of
from app.api.schemas.proposals import ProposalOut
from app.domain.edit import EditRequest
from app.domain.errors import (
    EditRejected,
    ErrataError,
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
    of_batch,
)
from app.domain.events import Origin
from app.domain.keys import Key, Role, check_reach
from app.service.batch_results import none_of, with_failures
from app.service.views import EditFailure, EditFilter, EditResults, OnProgress, silent

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["ed_0123456789abcdef"])]
MAKING = raises(
    EditRejected, IdempotencyMismatch, UnknownEdit, ScopeConflict, StateConflict, PreconditionFailed, QueueFull,
    StoreUnavailable, LostRace, RequestCancelled, body=True,
)  # fmt: skip


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.post(
        "/edit",
        status_code=201,
        response_model=MadeEdit | MadeEdits,
        responses={
            200: {
                "description": "A dry run, or nothing new: an identical edit is live already; or events of the job",
                "model": MadeEdit | MadeEdits,
                "content": WATCHED,
            },
            202: {
                "description": "It waits for a second person; or, asked for with `Prefer: respond-async`, a job",
                "model": JobOut | ProposalOut,
                "headers": {"Location": {"schema": {"type": "string"}, "description": "Of the proposal, or the job"}},
            },
            201: {
                "description": "Durable, applied here and verified",
                "headers": {"Location": {"schema": {"type": "string"}, "description": "Of a single edit"}},
                "links": leads_to(look="one_edit", roll_back="rollback_one", disable="disable", enable="enable"),
            },
            **MAKING,
        },
        summary="Correct an answer",
    )
    async def edit(
        request: Request,
        response: Response,
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[OneOrBatch, Body(openapi_examples=EXAMPLES)],
        prefer: Annotated[str, Header(description="`respond-async`: answer 202 at once, with a job.")] = "",
    ) -> Any:
        """Fits the edit beside serving, verifies it by generating, and commits it: seconds later it is live.

        Your own edit of the same prompt is superseded. Another person's edit is superseded only if `supersede` names
        it, or `If-Match` gives the revision that you have read (otherwise 409). A batch is `{"edits": [...]}`. After a
        503 the outcome may be unknown: ask again with the same Idempotency-Key. With `Prefer: respond-async` the answer
        is a job, and with `Accept: text/event-stream` its events, the last of which has the result or the problem.

        With a key of the role proposer, or if the namespace needs a second person, the answer is a proposal (202).
        """
        batch = isinstance(body, BatchBody)
        atomic = not isinstance(body, BatchBody) or body.atomic
        items = body.edits if isinstance(body, BatchBody) else [body]
        requests: dict[int, EditRequest] = {}
        wrong: list[EditFailure] = []
        for index, item in enumerate(items):
            try:
                with of_batch(index if batch else None):
                    edit_request = await asyncio.to_thread(_request_of, item, index, asker, service.answers.render)
                    check_reach(holder, edit_request.namespace)
                    requests[index] = edit_request
            except ErrataError as error:
                if atomic:
                    raise
                wrong.append(EditFailure(index=index, error=error))

        async def work(on_progress: OnProgress) -> tuple[EditResults, bool, bool]:
            how: dict[str, Any] = {
                "atomic": atomic,
                "batch": batch,
                "dry_run": body.dry_run,
                "on_progress": on_progress,
                "read": read,
            }
            try:
                if not requests:
                    raise none_of(wrong)
                results = await service.edit(list(requests.values()), asker, **how)
                results = with_failures(results, list(requests), wrong)
                if not results.results and results.proposal is None:
                    raise none_of(results.failures)
            except Exception as error:
                metrics.edit_failed(error, len(items))
                raise
            metrics.edited(results, dry_run=body.dry_run)
            for failure in results.failures:
                metrics.edit_failed(failure.error, 1)
            return results, batch, body.dry_run

        if prefers_job(prefer) or is_watched(request):
            names = {each.namespace for each in requests.values()}
            job = service.jobs.start(work, previews=names if body.dry_run else (), namespaces=names)
            if is_watched(request):
                return watched(service.jobs, job)
            return job_accepted(job)
        results, *_ = outcome = await work(silent)
        answer = made_of(*outcome)
        if isinstance(answer, ProposalOut):
            return proposal_accepted(answer)
        if not any(result.created for result in results.results):
            response.status_code = 200
        if isinstance(answer, MadeEdit) and not body.dry_run:
            response.headers["Location"] = f"/edits/{answer.id}"
            response.headers["ETag"] = f'"{answer.revision}"'
        return answer

    @router.get("/edits", responses=raises(), summary="List edits, newest first")
    async def list_edits(query: Annotated[EditsQuery, Query()], holder: Holder) -> EditPage:
        """A key for some namespaces sees only their edits."""
        where = within(query.to_domain(), holder)
        page = service.edits(where, query.limit, query.cursor)
        return EditPage(edits=[EditOut.of(view) for view in page.edits], next_cursor=page.next_cursor)

    @router.get("/edits/{edit_id}", responses=raises(UnknownEdit), summary="One edit, with its history")
    async def one_edit(edit_id: Id, response: Response, holder: Holder) -> EditDetail:
        """`ETag` is the edit's revision, for use in `If-Match`."""
        view = service.edit_view(edit_id)
        check_reach(holder, view.edit.request.namespace)
        response.headers["ETag"] = f'"{view.revision}"'
        return EditDetail.detailed(view, await service.neighbours(edit_id), service.records.hits.by_day(edit_id))

    return router


def requests_of(body: BatchBody | EditBody, asker: Origin, render: Render) -> list[EditRequest]:
    """The edit requests of a body, all or none. Rendering long texts takes time. Raises InvalidRequest or Forbidden."""
    if isinstance(body, EditBody):
        return [_request_of(body, 0, asker, render)]
    requests = []
    for index, item in enumerate(body.edits):
        with of_batch(index):
            requests.append(_request_of(item, index, asker, render))
    return requests


def within(where: EditFilter, holder: Key | None) -> EditFilter:
    """The filter limited to what the key opens. Raises Forbidden if it asks for a namespace that the key does not
    open."""
    if holder is None or not holder.namespaces:
        return where
    if where.namespace is not None:
        check_reach(holder, where.namespace)
    return replace(where, namespaces=frozenset(holder.namespaces))


def check_edits(service: "Service", holder: Key | None, edit_ids: Sequence[str]) -> None:
    """Check that the key opens the namespaces of these edits. Raises Forbidden, and UnknownEdit for a missing edit
    under a key for some namespaces; under other keys the service reports missing edits itself."""
    if holder is None or not holder.namespaces:
        return
    for edit_id in edit_ids:
        check_reach(holder, service.records.ledger.entry(edit_id).edit.request.namespace)


def _request_of(item: EditItem, index: int, asker: Origin, render: Render) -> EditRequest:
    if isinstance(item, WrongItem):
        errors = [{**each, "loc": ("body", "edits", index, *each["loc"])} for each in item.errors]
        sent = {"edits": [None] * index + [item.given]}
        error = RequestValidationError(errors, body=sent)
        problems = problems_of(error, OneOrBatch)
        raise InvalidRequest(detail_of(problems, error), errors=problems)
    if item.force:
        check_force(asker, item.reason)
    return item.to_domain(render)


def check_force(asker: Origin, reason: str | None) -> None:
    """Check that the requester may override verification: if keys are required, only an admin may, and must give a
    reason."""
    if asker.role not in (None, Role.ADMIN):
        raise Forbidden(
            "`force` overrides verification: it needs a key of the role admin. See /help/operation#keys-and-roles."
        )
    if asker.role is not None and not (reason or "").strip():
        raise InvalidRequest("`force` overrides verification: give a `reason` with it.")
