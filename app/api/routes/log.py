"""The log and the editors, to read. Changes nothing."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from app.api.openapi import raises
from app.api.schemas.server import Editors, EventOut, LogPage, LogQuery
from app.domain.errors import RevisionGone, StoreCorrupt, StoreUnavailable
from app.service.reading import read_page

if TYPE_CHECKING:
    from app.service.service import Service


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.get(
        "/log",
        responses=raises(StoreUnavailable, StoreCorrupt, RevisionGone),
        response_model_exclude_unset=True,
        summary="Every event, oldest or newest first",
    )
    async def log(query: Annotated[LogQuery, Query()]) -> LogPage:
        """Read from the log itself, not from memory: what is shown is what would be found after a restart."""
        page = await asyncio.to_thread(read_page, service.records, query.to_domain())
        found = [EventOut.of(event, entry_hash) for event, entry_hash in page.events]
        onwards = page.read_to if page.more else None
        newest = query.order == "newest"
        return LogPage(
            events=found,
            next_after=None if newest else onwards,
            next_before=onwards if newest else None,
            read_to=page.read_to,
        )

    @router.get("/editors", responses=raises(), summary="The editors of this server")
    async def editors() -> Editors:
        return Editors(editors=service.editors())

    return router
