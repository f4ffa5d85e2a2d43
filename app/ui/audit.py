"""The audit: a searchable list of changes, a check of the log's chain of hashes, and exports of the whole log."""

import asyncio
import csv
import io
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.errors import ErrataError, InvalidRequest, StoreCorrupt, StoreUnavailable
from app.domain.events import EVENTS, Event
from app.domain.keys import Right
from app.ui import words
from app.ui.desk import HERE, Desk
from app.ui.event_view import EventView, event_view_of
from app.ui.timeline import events_down
from app.ui.visit import Visit

PER_PAGE = 50
LOOKED_THROUGH = 20_000
"""The most events that one page searches for its filters."""
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """The result of the last check of the log. `problem` is None if every entry names its predecessor's hash."""

    at_s: float
    entries: int
    revision: int
    hash: str
    problem: str | None


class AuditPages:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._chain: ChainCheck | None = None

    def routes(self) -> list[Route]:
        see = partial(self._desk.route, right=Right.READ)
        return [
            see("/audit", get=self.show),
            see("/audit/check", post=self.check),
            see("/audit/export.jsonl", get=self.jsonl),
            see("/audit/export.csv", get=self.csv),
        ]

    async def show(self, visit: Visit) -> Response:
        query = visit.query
        filters = {name: query.get(name, "").strip() for name in ("q", "kind", "actor", "since", "until", "mark")}
        if filters["kind"] and filters["kind"] not in EVENTS:
            raise InvalidRequest("There is no such kind of change: choose one from the list.")
        start = query.get("from", "")
        newest = int(start) if start.isdecimal() and len(start) < 18 else visit.service.revision
        newest = min(newest, visit.service.revision)
        problem, events, older = None, list[EventView](), None
        try:
            events, older = await asyncio.to_thread(self._events, visit, filters, newest)
        except (StoreCorrupt, StoreUnavailable) as error:  # the page that reports a broken chain must not fail itself
            problem = problem_of(error)
        return visit.page(
            "_audit.html" if visit.partial else "audit.html",
            title="Audit",
            filters=filters,
            filtered=any(filters.values()),
            kinds=list(EVENTS),
            events=events,
            older=older,
            problem=problem,
            chain=self._chain,
        )

    def _events(self, visit: Visit, filters: dict[str, str], newest: int) -> tuple[list[EventView], int | None]:
        """The events that pass the filters, newest first, and the revision at which to continue. Blocks."""
        since_s, until_s = _day_s(filters["since"], "Since"), _day_s(filters["until"], "Until")
        views: list[EventView] = []
        looked, at = 0, newest
        while at > 0 and looked < LOOKED_THROUGH:
            events = events_down(visit, at, AT_ONCE)
            if not events:
                return views, None
            for event in events:
                at, looked = event.revision - 1, looked + 1
                view = event_view_of(visit, event)
                if _matches(view, filters, since_s, until_s):
                    views.append(view)
                if len(views) == PER_PAGE:
                    return views, at or None
        return views, at or None

    async def check(self, visit: Visit) -> Response:
        """Read every entry of the log from the store, not from memory, and compare it with its predecessor."""
        self._chain = await asyncio.to_thread(self._checked, visit)
        return visit.to(f"{HERE}/audit")

    def _checked(self, visit: Visit) -> ChainCheck:
        log = visit.service.records.log
        count = revision = 0
        last = ""
        try:
            first = log.first()
            for event, entry_hash in log.follow(first - 1, log.hash_of(first - 1)):
                count, revision, last = count + 1, event.revision, entry_hash
        except ErrataError as error:
            return ChainCheck(time.time(), count, revision, last, error.message)
        return ChainCheck(time.time(), count, revision, last, None)

    # -- exports

    async def jsonl(self, visit: Visit) -> Response:
        """Export JSON lines, each with the entry as the log keeps it. An entry ends with the SHA-256 of its content and
        contains its predecessor's hash, so that the file can be verified line by line without a server."""
        log = visit.service.records.log
        lines = (
            json.dumps(_fields(visit, *each) | {"entry": b64encode(log.entry(each[0].revision)).decode()}) + "\n"
            for each in _all(visit)
        )
        return self._file(lines, "application/jsonl", "errata-audit.jsonl")

    async def csv(self, visit: Visit) -> Response:
        return self._file(_csv(visit), "text/csv; charset=utf-8", "errata-audit.csv")

    def _file(self, lines: Iterator[str], kind: str, name: str) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(lines, media_type=kind, headers=headers)


def _all(visit: Visit) -> Iterator[tuple[Event, str, str]]:
    """Yields (event, its predecessor's hash, its own hash), read from the log itself, a page at a time."""
    log = visit.service.records.log
    after = log.first() - 1
    prev = log.hash_of(after)
    while events := visit.service.records.events(after, AT_ONCE):
        for event, entry_hash in events:
            yield event, prev, entry_hash
            prev = entry_hash
        after = events[-1][0].revision


COLUMNS = (
    "revision", "prev", "hash", "kind", "at", "actor", "key_id", "role", "reason", "request_id", "client", "namespace",
    "edit_ids", "question", "before", "after", "what", "forced", "superseded", "proposal", "proposed_by",
)  # fmt: skip


def _fields(visit: Visit, event: Event, prev: str, entry_hash: str) -> dict[str, Any]:
    view, origin = event_view_of(visit, event, entry_hash), event.origin
    first = view.items[0] if view.items else None
    return {
        "revision": event.revision,
        "prev": prev,
        "hash": entry_hash,
        "kind": event.kind,
        "at": words.iso(event.at_s),
        "actor": origin.actor,
        "key_id": origin.key_id,
        "role": origin.role,
        "reason": origin.reason,
        "request_id": origin.request_id,
        "client": origin.client,
        "namespace": view.namespace,
        "edit_ids": list(getattr(event, "edit_ids", ())) or ([first.id] if first else []),
        "question": first and first.question,
        "before": first and first.before,
        "after": first and first.after,
        "what": view.detail or view.verb,
        "forced": view.forced,
        "superseded": view.superseded,
        "proposal": view.proposal or (None if origin.proposer is None else origin.proposer.proposal_id),
        "proposed_by": None if origin.proposer is None else origin.proposer.actor,
    }


def _csv(visit: Visit) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for each in _all(visit):
        fields = _fields(visit, *each)
        fields["edit_ids"] = " ".join(fields["edit_ids"])
        writer.writerow([_plain(fields[name]) for name in COLUMNS])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def _plain(value: Any) -> str:
    """The value in a form that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _matches(view: EventView, filters: dict[str, str], since_s: float | None, until_s: float | None) -> bool:
    if filters["kind"] and view.kind != filters["kind"]:
        return False
    who = filters["actor"].casefold()
    persons = [each for each in (view.origin, view.origin.proposer) if each is not None]
    if who and not any(who in each.actor.casefold() or who == (each.key_id or "").casefold() for each in persons):
        return False
    if (since_s is not None and view.at_s < since_s) or (until_s is not None and view.at_s >= until_s + 86400.0):
        return False
    if (filters["mark"] == "forced" and not view.forced) or (filters["mark"] == "superseded" and not view.superseded):
        return False
    if text := filters["q"].casefold():
        texts = (
            view.detail,
            view.origin.reason or "",
            view.proposal_question,
            *(part for i in view.items for part in (i.id, i.question, i.after)),
        )
        return any(text in each.casefold() for each in texts)
    return True


def _day_s(text: str, name: str) -> float | None:
    """The beginning of a day (UTC), in Unix seconds; None for no day. Raises InvalidRequest."""
    if not text:
        return None
    try:
        return words.day_s(text)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"“{name}” must be a day, such as 2030-12-31.") from None
