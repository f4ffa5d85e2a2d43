"""Notifications of others' changes while a page is open: an event for each new revision. Independent of other pages."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app.domain.errors import ErrataError
from app.domain.events import Event
from app.domain.keys import Right
from app.service.edit_history import namespaces_of
from app.ui import words
from app.ui.ask import EVENT_STREAM
from app.ui.desk import Desk
from app.ui.visit import Visit

MAX_READ = 200
"""The most events that are read from the log at a time for a visitor whose key opens some namespaces."""
SILENCE_S = 15.0
"""The interval between comments, in seconds; they reveal a dead connection."""


def routes(desk: Desk) -> list[Route]:
    return [desk.route("/changes", Right.READ, get=changes, reached=True)]


async def changes(visit: Visit) -> Response:
    return StreamingResponse(_events(visit), media_type="text/event-stream", headers=EVENT_STREAM)


async def _events(visit: Visit) -> AsyncIterator[str]:
    records, leaving = visit.service.records, visit.desk.leaving
    seen = visit.query.get("since", "")
    seen_to = int(seen) if seen.isdecimal() and len(seen) < 18 else records.revision
    yield "retry: 3000\n\n"
    gone = asyncio.ensure_future(leaving.wait())
    try:
        while not leaving.is_set():
            news = asyncio.ensure_future(records.wait_for(seen_to + 1, SILENCE_S))
            await asyncio.wait({news, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                return
            if not visit.signed_in:  # the key was revoked meanwhile
                return
            if not news.result():
                yield ": all is quiet\n\n"
                continue
            before, seen_to = seen_to, records.revision
            words = await asyncio.to_thread(_change_in_words, visit, before, seen_to)
            if words is not None:
                yield f"event: change\ndata: {json.dumps(words)}\n\n"
    finally:
        gone.cancel()


def _change_in_words(visit: Visit, before: int, revision: int) -> dict[str, object] | None:
    """The newest of the changes above a revision that the visitor's key opens, in words; None if it opens none."""
    after = revision - 1 if visit.opens(None) else max(before, revision - MAX_READ)
    try:
        events = [event for event, _ in visit.service.records.events(after, revision - after)]
    except (ErrataError, ValueError):
        return {"revision": revision, "text": "Something has changed."}
    event = next((each for each in reversed(events) if _is_open(visit, each)), None)
    if event is None:
        return None
    return {"revision": event.revision, "text": f"{event.origin.actor} {words.event_word(event.kind)}"}


def _is_open(visit: Visit, event: Event) -> bool:
    """True if the visitor's key opens a namespace that the event is about, as a switch of all namespaces is about
    each."""
    namespaces = namespaces_of(event, visit.service.records.ledger)
    return visit.opens(None) or any(name is None or visit.opens(name) for name in namespaces)
