"""The log and the editors, to read. Changes nothing."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from app.api.openapi import raises
from app.api.schemas.server import Editors, EventOut, LogPage, LogQuery
from app.domain.errors import RevisionGone, StoreCorrupt, StoreUnavailable

if TYPE_CHECKING:
    from app.service.service import Service


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.get(
        "/log",
        responses=raises(StoreUnavailable, StoreCorrupt, RevisionGone),
        response_model_exclude_unset=True,
        summary="Every event, oldest first",
    )
    async def log(query: Annotated[LogQuery, Query()]) -> LogPage:
        """Read from the log itself, not from memory: what is shown is what would be found after a restart."""
        head = service.revision
        events = await asyncio.to_thread(service.records.events, query.after, query.limit)
        last = events[-1][0].revision if events else head
        found = [EventOut.of(event, entry_hash) for event, entry_hash in events]
        return LogPage(events=found, next_after=last if last < head else None)

    @router.get("/editors", responses=raises(), summary="The editors of this server")
    async def editors() -> Editors:
        return Editors(editors=service.editors())

    return router
