"""Routes that read the log and list the editors, and one that adopts another log."""

import asyncio
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Query
from fastapi.responses import StreamingResponse

from app.api.deps import Asker, because
from app.api.openapi import raises
from app.api.schemas.log import AdoptBody, Adopted, EventOut, ExportQuery, LogPage, LogQuery
from app.api.schemas.server import Editors
from app.domain.errors import RevisionGone, StateConflict, StoreCorrupt, StoreUnavailable
from app.service.edit_history import effects
from app.service.event_pages import read_page

if TYPE_CHECKING:
    from app.service.service import Service

NDJSON = "application/x-ndjson"
ADOPT = {"a backup": {"value": {"revision": 4711, "reason": "Restored after the disk failed; incident 12"}}}


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.get(
        "/log",
        responses=raises(StoreUnavailable, StoreCorrupt, RevisionGone),
        response_model_exclude_unset=True,
        summary="Every event, oldest or newest first",
    )
    async def log(query: Annotated[LogQuery, Query()]) -> LogPage:
        """Reads from the log itself, not from memory: the answer is what would be found after a restart."""
        records = service.records
        page = await asyncio.to_thread(read_page, records, query.to_domain())
        effects_at = effects(records.ledger, [event for event, _ in page.events])
        nothing: tuple[list[str], list[str]] = ([], [])
        events = [
            EventOut.of(e, e_hash, records.ledger, effects_at.get(e.revision, nothing)) for e, e_hash in page.events
        ]
        onwards = page.read_to if page.more else None
        newest = query.order == "newest"
        return LogPage(
            events=events,
            next_after=None if newest else onwards,
            next_before=onwards if newest else None,
            read_to=page.read_to,
        )

    @router.get(
        "/log/export",
        response_class=StreamingResponse,
        responses={
            200: {"description": "JSON, a line for each event", "content": {NDJSON: {"schema": {"type": "string"}}}},
            **raises(StoreUnavailable, StoreCorrupt, RevisionGone),
        },
        summary="The log as lines that prove themselves",
    )
    async def export_log(query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
        """Each line has everything that its hash covers, tensors included, so that anybody with SHA-256 and JSON can
        check that nothing was changed, left out or inserted (`errata log verify FILE`, `deploy/verify-log.py`)."""
        rows = await asyncio.to_thread(service.records.exported, query.after)
        begun = await asyncio.to_thread(list, islice(rows, 1))  # a log that cannot be read still has a status to say so
        return StreamingResponse((f"{row}\n" for row in chain(begun, rows)), media_type=NDJSON)

    @router.post(
        "/log/adopt",
        responses=raises(StateConflict, StoreUnavailable, StoreCorrupt, body=True),
        summary="Adopt another log",
    )
    async def adopt_log(asker: Asker, body: Annotated[AdoptBody, Body(openapi_examples=ADOPT)]) -> Adopted:
        """If an empty, older or different log has taken the place of the one that was applied, the server is not ready
        (`why_not`) until the log is repaired or adopted here. Events that only the lost log held are gone."""
        await service.adopt_log(body.revision, because(asker, body.reason))
        return Adopted(revision=service.revision, hash=service.records.hash)

    @router.get("/editors", responses=raises(), summary="The editors of this server")
    async def editors() -> Editors:
        return Editors(editors=await asyncio.to_thread(service.editors))

    return router
