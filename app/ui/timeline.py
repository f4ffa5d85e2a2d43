"""The timeline: every revision, the edits live at it, two revisions compared, and the way back to one in a
namespace."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.entry import Entry
from app.domain.errors import ErrataError, InvalidRequest, RevisionGone
from app.domain.events import Event
from app.domain.keys import Right
from app.service.namespaces import DEFAULT
from app.service.outlook import since
from app.service.views import EditView
from app.ui.desk import HERE, Desk
from app.ui.event_view import EventView, event_view_of
from app.ui.visit import Visit

PER_PAGE = 50
MOST_SHOWN = 200


def routes(desk: Desk) -> list[Route]:
    see, edit = partial(desk.route, right=Right.READ), partial(desk.route, right=Right.EDIT)
    return [
        see("/timeline", get=timeline),
        see("/timeline/at", get=at),
        see("/timeline/compare", get=compare),
        edit("/timeline/back", get=ask_back, post=back),
    ]


async def timeline(visit: Visit) -> Response:
    head = visit.service.revision
    newest = _revision(visit, "from", head)
    events = await asyncio.to_thread(events_down, visit, newest, PER_PAGE)
    oldest = events[-1].revision if events else 1
    first = await asyncio.to_thread(visit.service.records.log.first)
    return visit.page(
        "timeline.html",
        title="Timeline",
        head=head,
        events=[event_view_of(visit, event) for event in events],
        older=oldest - 1 if oldest > first else None,
        newest=newest,
        changed=_changed(visit),
    )


def events_down(visit: Visit, newest: int, count: int) -> list[Event]:
    """The events from a revision downwards, newest first. Blocks."""
    records = visit.service.records
    after = max(records.log.first() - 1, newest - count)
    return [event for event, _ in reversed(records.events(after, newest - after))] if newest > after else []


def _changed(visit: Visit) -> int | None:
    text = visit.query.get("changed", "")
    return int(text) if text.isdecimal() and len(text) < 18 else None


def _revision(visit: Visit, name: str, otherwise: int) -> int:
    """A revision from the query. Raises InvalidRequest."""
    text, head = visit.query.get(name, "").strip(), visit.service.revision
    if not text:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > head:
        raise InvalidRequest(f"A revision is a whole number from 0 to {head}.")
    return int(text)


# -- the edits live at a revision


async def at(visit: Visit) -> Response:
    """Show the edits that were live at a revision; htmx asks for it while the slider moves."""
    revision = _revision(visit, "revision", visit.service.revision)
    live = [entry for entry in visit.service.records.ledger.entries.values() if entry.live_at(revision)]
    event: EventView | None = None
    if revision:
        try:
            events = await asyncio.to_thread(events_down, visit, revision, 1)
            event = event_view_of(visit, events[0]) if events else None
        except RevisionGone:  # the event was trimmed, but the edits live at it are still known
            pass
    return visit.page(
        "_timeline_at.html" if visit.partial else "timeline_at.html",
        title=f"Revision {revision}",
        revision=revision,
        head=visit.service.revision,
        event=event,
        count=len(live),
        live=_views(visit, live),
        question=visit.service.answers.question,
    )


def _views(visit: Visit, entries: Sequence[Entry]) -> list[EditView]:
    return [visit.service.edit_view(entry.edit.id) for entry in reversed(entries[-MOST_SHOWN:])]


async def compare(visit: Visit) -> Response:
    """Show the edits that were added, removed or changed between two revisions."""
    head = visit.service.revision
    one, other = sorted((_revision(visit, "a", max(0, head - 1)), _revision(visit, "b", head)))
    entries = visit.service.records.ledger.entries.values()
    came = [entry for entry in entries if not entry.live_at(one) and entry.live_at(other)]
    went = [entry for entry in entries if entry.live_at(one) and not entry.live_at(other)]
    both = (entry for entry in entries if entry.live_at(one) and entry.live_at(other))
    otherwise = [entry for entry in both if entry.fit_id(one) != entry.fit_id(other)]
    return visit.page(
        "compare.html",
        title="Compare",
        one=one,
        other=other,
        head=head,
        parts=[
            ("Came", "ins", len(came), _views(visit, came)),
            ("Went", "del", len(went), _views(visit, went)),
            ("Changed whom they reach", "", len(otherwise), _views(visit, otherwise)),
        ],
        question=visit.service.answers.question,
    )


# -- back to a revision, in one namespace


def leaving(visit: Visit, revision: int, namespace: str) -> list[Entry]:
    """The edits of a namespace that going back to a revision would roll back. Raises UnknownNamespace."""
    service = visit.service
    ids = since(service.records.ledger, revision, namespace, service.configured, None)
    return [service.records.ledger.entries[each] for each in ids]


def _other_namespaces(visit: Visit, revision: int, namespace: str) -> dict[str, int]:
    """The number of edits that going back would roll back in each other namespace that has any."""
    service = visit.service
    ids = since(service.records.ledger, revision, None, service.configured, None)
    names = Counter(service.records.ledger.entries[each].edit.request.namespace for each in ids)
    return {name: count for name, count in sorted(names.items()) if name != namespace}


async def ask_back(visit: Visit) -> Response:
    revision = _revision(visit, "revision", visit.service.revision)
    return await _ask_back(visit, revision, visit.query.get("namespace", "").strip() or DEFAULT)


async def _ask_back(
    visit: Visit, revision: int, namespace: str, problem: Any = None, stale: bool = False, reason: str = ""
) -> Response:
    gone = leaving(visit, revision, namespace)
    ids = {entry.edit.id for entry in gone}
    entries = visit.service.records.ledger.entries
    returning = [
        entries[old]
        for entry in gone
        for old in entry.edit.supersedes
        if old not in ids and not (entries[old].rolled_back or entries[old].disabled or entries[old].expired)
    ]
    return visit.page(
        "back.html",
        status=409 if stale else 200 if problem is None else problem["status"],
        title=f"Back to revision {revision}",
        revision=revision,
        namespace=namespace,
        others=_other_namespaces(visit, revision, namespace),
        head=visit.service.revision,
        count=len(gone),
        leaving=_views(visit, gone),
        returning=_views(visit, returning),
        problem=problem,
        stale=stale,
        reason=reason,
        question=visit.service.answers.question,
    )


async def back(visit: Visit) -> Response:
    """Roll back the edits that the preview showed, and none that were made after it."""
    service, form = visit.service, visit.form
    revision, namespace = form.number("revision", service.revision), form.get("namespace") or DEFAULT
    origin = visit.origin(form.reason(), "back", revision, namespace)
    try:
        if service.records.done_under(origin) is None and service.records.ledger.last_change(namespace) > visit.read():
            return await _ask_back(visit, revision, namespace, stale=True, reason=form.get("reason"))
        await service.roll_back_to(revision, namespace, origin)
    except ErrataError as error:
        at = min(revision, service.revision)
        return await _ask_back(visit, at, namespace, problem_of(error), reason=form.get("reason"))
    return visit.to(f"{HERE}/timeline", changed=service.revision)
