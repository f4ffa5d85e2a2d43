"""Notifications of others' changes while a page is open: an event for each new revision. Independent of other pages."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app.domain.errors import ErrataError
from app.domain.keys import Right
from app.ui import words
from app.ui.ask import EVENT_STREAM
from app.ui.desk import Desk
from app.ui.visit import Visit

SILENCE_S = 15.0
"""The interval between comments, in seconds; they reveal a dead connection."""


def routes(desk: Desk) -> list[Route]:
    return [desk.route("/changes", Right.READ, get=changes, reached=True)]


async def changes(visit: Visit) -> Response:
    return StreamingResponse(_events(visit), media_type="text/event-stream", headers=EVENT_STREAM)


async def _events(visit: Visit) -> AsyncIterator[str]:
    records, leaving = visit.service.records, visit.desk.leaving
    seen = visit.query.get("since", "")
    told = int(seen) if seen.isdecimal() and len(seen) < 18 else records.revision
    yield "retry: 3000\n\n"
    gone = asyncio.ensure_future(leaving.wait())
    try:
        while not leaving.is_set():
            news = asyncio.ensure_future(records.wait_for(told + 1, SILENCE_S))
            await asyncio.wait({news, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                return
            if not news.result():
                yield ": all is quiet\n\n"
                continue
            told = records.revision
            yield f"event: change\ndata: {json.dumps(await asyncio.to_thread(_told, visit, told))}\n\n"
    finally:
        gone.cancel()


def _told(visit: Visit, revision: int) -> dict[str, object]:
    """The newest change, in words."""
    try:
        ((event, _),) = visit.service.records.events(revision - 1, 1)
    except (ErrataError, ValueError):
        return {"revision": revision, "text": "Something has changed."}
    return {"revision": revision, "text": f"{event.origin.actor} {words.event_word(event.kind)}"}
