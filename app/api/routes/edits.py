"""Making edits, and looking at them. Knows no editor: what an edit is made of is decided below."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from app.api.deps import Asker
from app.api.errors import problem_of
from app.api.metrics import Metrics
from app.api.openapi import leads_to, raises
from app.api.schemas.corrections import EXAMPLES, BatchBody, EditsQuery, OneOrBatch
from app.api.schemas.edits import EditDetail, EditOut, EditPage, FailedEdit, MadeEdit, MadeEdits
from app.domain.errors import (
    EditRejected,
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    LostRace,
    QueueFull,
    RequestCancelled,
    ScopeConflict,
    StateConflict,
    StoreUnavailable,
    UnknownEdit,
)
from app.domain.events import Origin
from app.domain.keys import Role

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["ed_0123456789abcdef"])]
MAKING = raises(
    EditRejected, IdempotencyMismatch, UnknownEdit, ScopeConflict, StateConflict, QueueFull, StoreUnavailable, LostRace,
    RequestCancelled, body=True,
)  # fmt: skip


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.post(
        "/edit",
        status_code=201,
        responses={
            200: {
                "description": "A dry run, or nothing new: what was asked for stands already",
                "model": MadeEdit | MadeEdits,
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
        response: Response,
        asker: Asker,
        body: Annotated[OneOrBatch, Body(openapi_examples=EXAMPLES)],
    ) -> MadeEdit | MadeEdits:
        """Fits the edit beside serving, verifies it by generating, and commits it: seconds later it is live.

        The same prompt again supersedes the older edit; a batch is `{"edits": [...]}`. After a 503 the outcome may be
        unknown: ask again with the same Idempotency-Key.
        """
        batch = isinstance(body, BatchBody)
        items = body.edits if isinstance(body, BatchBody) else [body]
        for item in items:
            if item.force:
                check_force(asker, item.reason)
        try:
            results = await service.edit(
                [item.to_domain(service.answering.render) for item in items],
                asker,
                atomic=body.atomic if isinstance(body, BatchBody) else True,
                batch=batch,
                dry_run=body.dry_run,
            )
        except Exception as error:
            metrics.edit_failed(error, len(items))
            raise
        metrics.edited(results, dry_run=body.dry_run)
        for failure in results.failures:
            metrics.edit_failed(failure.error, 1)
        if not any(result.created for result in results.results):
            response.status_code = 200
        made = [MadeEdit.made(result, dry_run=body.dry_run, revision=results.revision) for result in results.results]
        if batch:
            failures = [FailedEdit(index=each.index, problem=problem_of(each.error)) for each in results.failures]
            return MadeEdits(edits=made, revision=results.revision, failures=failures)
        if not body.dry_run:
            response.headers["Location"] = f"/edits/{made[0].id}"
        return made[0]

    @router.get("/edits", responses=raises(), summary="List edits, newest first")
    async def list_edits(query: Annotated[EditsQuery, Query()]) -> EditPage:
        page = service.edits(query.to_domain(), query.limit, query.cursor)
        return EditPage(edits=[EditOut.of(view) for view in page.edits], next_cursor=page.next_cursor)

    @router.get("/edits/{edit_id}", responses=raises(UnknownEdit), summary="One edit, with its history")
    async def one_edit(edit_id: Id) -> EditDetail:
        return EditDetail.detailed(service.edit_view(edit_id), await service.neighbours(edit_id))

    return router


def check_force(asker: Origin, reason: str | None) -> None:
    """Who is asked for a key overrides verification only as an admin, and says why."""
    if asker.role not in (None, Role.ADMIN):
        raise Forbidden("`force` overrides verification: it needs a key of the role admin.")
    if asker.role is not None and not reason:
        raise InvalidRequest("`force` overrides verification: give a `reason` with it.")
