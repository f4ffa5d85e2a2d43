"""Pages of the log, from its oldest event on or from its newest back, filtered or not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.domain.events import EditCommitted, EditStaged, Event, LivenessChange
from app.domain.keys import Key
from app.service.edit_history import is_by
from app.service.records import Records

CHUNK_EVENTS = 100
MAX_READ = 5_000
"""The most events searched for one page: a filter that matches nothing must not read the whole log for one answer."""

Hashed = tuple[Event, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """A query of events; None matches any. `after` applies if the oldest come first, `before` if the newest do."""

    newest_first: bool = False
    after: int | None = None
    before: int | None = None
    limit: int = 100
    actor: str | None = None
    edit_id: str | None = None
    since_s: float | None = None

    def matches(self, event: Event, keys: Mapping[str, Key]) -> bool:
        if self.actor is not None and not is_by(event.origin, self.actor, keys):
            return False
        if self.since_s is not None and event.at_s < self.since_s:
            return False
        return self.edit_id is None or self.edit_id in edits_of(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events with their hashes. `read_to` is the last revision that was examined, whether or not it is among them."""

    events: tuple[Hashed, ...]
    read_to: int
    more: bool


def edits_of(event: Event) -> tuple[str, ...]:
    """The edits that an event is about: those that it names, those that it replaces, and those that change with it."""
    changed_too = (*event.revived, *event.superseded) if isinstance(event, LivenessChange) else ()
    if isinstance(event, EditCommitted | EditStaged):
        return event.edit.id, *event.edit.supersedes, *changed_too
    return (*getattr(event, "edit_ids", ()), *changed_too)


def read_page(records: Records, query: EventQuery) -> EventPage:
    """A page of events, read from the log itself; blocks. Raises RevisionGone below the oldest entry of a trimmed
    log."""
    events: list[Hashed] = []
    read_to, seen, limited = query.after or 0, 0, False
    chunks = _backwards(records, query.before) if query.newest_first else _forwards(records, query.after)
    for event, entry_hash in chunks:
        if len(events) == query.limit or seen == MAX_READ:
            limited = True
            break
        if query.newest_first and query.since_s is not None and event.at_s < query.since_s:
            break
        seen, read_to = seen + 1, event.revision
        if query.matches(event, records.ledger.keys):
            events.append((event, entry_hash))
    return EventPage(events=tuple(events), read_to=read_to, more=limited)


def _forwards(records: Records, after: int | None) -> Iterator[Hashed]:
    while events := records.events(after, CHUNK_EVENTS):
        yield from events
        after = events[-1][0].revision


def _backwards(records: Records, before: int | None) -> Iterator[Hashed]:
    first, head = records.log.first(), records.log.head()
    top = head if before is None else min(head, before - 1)
    while top >= first:
        low = max(first - 1, top - CHUNK_EVENTS)
        yield from reversed(records.events(low, top - low))
        top = low
