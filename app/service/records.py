"""The log with its ledger: every change is appended first and folded second, one writer at a time."""

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from app.domain.entry import NEVER, Entry, KeyedOutcome
from app.domain.errors import (
    IdempotencyMismatch,
    InvalidRequest,
    LostRace,
    RevisionGone,
    StoreCorrupt,
    StoreUnavailable,
)
from app.domain.events import Event, Origin
from app.domain.ledger import Ledger
from app.engine.controls import plain
from app.service.edit_history import actor_of, history_of, is_by, turned_at
from app.service.hits import Hits
from app.service.log_lines import log_change
from app.service.tasks import uninterrupted
from app.service.views import EditFilter, EditView, Page, Sort
from app.store import audit
from app.store.base import Log
from app.store.codec import GENESIS
from app.store.upkeep import fold

TakeIn = Callable[[Sequence[Event], Ledger], Awaitable[None]]
"""A callback for other servers' events before they are folded, which loads the rows of their edits."""
CATCH_UP_EVENTS = 32
"""The most events whose rows are loaded together: their texts are encoded several times as fast as one by one, and
loading more would hold up the engine's next step."""


class Records:
    """The known edits. Reads come from memory; a write is the log's append, then the fold.

    Other servers may write to the same log: `catch_up` folds what they wrote, and every write begins with it.
    """

    def __init__(
        self,
        log: Log,
        take_in: TakeIn | None = None,
        folded: Callable[[Event, Ledger], None] | None = None,
        clock: "Clock" = time.time,
    ) -> None:
        self.log = log
        self._clock = clock
        self._take_in = take_in
        self._folded = folded
        self.ledger = Ledger()
        self.hash = GENESIS
        """The hash of the log's entry at the ledger's revision, which covers the whole history."""
        self._head = 0
        """The log's head, as it last answered."""
        self.hits = Hits(log, clock)
        self.holds: dict[str, str] = {}
        """The reasons why nothing may be written now, by kind: `durability`, `history`."""
        self.writing = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def revision(self) -> int:
        return self.ledger.revision

    @property
    def now_s(self) -> float:
        """The time of the clock by which edits expire, Unix time in seconds."""
        return self._clock()

    @property
    def lag(self) -> int:
        """The number of the log's events that are not folded here yet, as far as the log has answered."""
        return max(0, self._head - self.revision)

    @property
    def held(self) -> str | None:
        """A reason why nothing may be written now; None if writing is allowed."""
        return next(iter(self.holds.values()), None)

    def check_held(self) -> None:
        """Raises StoreUnavailable if nothing may be written now."""
        if self.held is not None:
            raise StoreUnavailable(
                f"Changes are not accepted now: {self.held} See /help/operation#when-the-log-changes-under-a-server.",
                retry_after_s=5,
            )

    def fold_all(self) -> None:
        """Fold the log from its newest snapshot on. For the start: it blocks, and loads no rows."""
        self.ledger, self.hash = self.read_anew()

    def read_anew(self) -> tuple[Ledger, str]:
        """The ledger and hash of the present log, for one whose history was replaced; blocks."""
        return fold(self.log)

    async def catch_up(self) -> None:
        """Fold the events that others have appended. Only under `writing`. Raises the log's errors."""
        assert self.writing.locked()
        news = await asyncio.to_thread(self._news)
        while events := await asyncio.to_thread(lambda: list(islice(news, CATCH_UP_EVENTS))):
            if self._take_in is not None and len(events) > 1:
                with suppress(Exception):  # raised again below, once the events before it are folded
                    await self._take_in([event for event, _ in events], self.ledger)
            for event, entry_hash in events:
                if self._take_in is not None:
                    await self._take_in([event], self.ledger)
                self._fold(event, entry_hash)
                log_change(event, self.ledger, here=False)

    def check_history(self) -> None:
        """Raises StoreCorrupt unless the log still holds what was folded: it may have been restored or replaced."""
        self._head = self.log.head()
        if self._head < self.revision or self.log.hash_of(self.revision) != self.hash:
            raise StoreCorrupt(f"The log's history up to revision {self.revision} is no longer the one that was read.")

    def _news(self) -> Iterator[tuple[Event, str]]:
        """The events to fold and their hashes, from one reading of the log, which fetches ahead."""
        head = self._head = self.log.head()
        if head < self.revision:
            raise StoreCorrupt(f"The log ends at revision {head}, but {self.revision} was reached: history is gone.")
        return self.log.follow(self.revision, self.hash) if head > self.revision else iter(())

    async def write(
        self,
        make: Callable[[], Event | None],
        before: Callable[[], Awaitable[None]] | None = None,
        undo: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Append the event that `make` builds on the newest ledger, again after a lost race; None appends nothing.

        `before` is awaited before each attempt, because what the event lets requests see must be in memory by then;
        `undo` after each attempt that failed, before further events are read, which may bring other rows of the same
        name.
        """
        async with self.writing:
            while True:
                await self.catch_up()
                event = make()
                if event is None:
                    return
                try:
                    if before is not None:
                        await before()
                    await self.append(event)
                    return
                except LostRace:
                    pass
                finally:
                    if undo is not None and self.revision < event.revision:
                        await uninterrupted(undo())

    async def append(self, event: Event) -> None:
        """The commit point. Only under `writing`; the caller has checked that the ledger accepts the event."""
        assert self.writing.locked()
        self.check_held()
        # a cancelled caller must not leave an event in the log that the ledger has not seen
        await uninterrupted(self._append(event))

    async def _append(self, event: Event) -> None:
        event = self.ledger.as_recorded(event)
        self._fold(event, await asyncio.to_thread(self.log.append, event))
        log_change(event, self.ledger, here=True)

    def _fold(self, event: Event, entry_hash: str) -> None:
        self.ledger.apply(event)
        self.hash = entry_hash
        if self._folded is not None:
            self._folded(event, self.ledger)
        self._changed.set()
        self._changed = asyncio.Event()

    def events(self, after: int | None, limit: int) -> list[tuple[Event, str]]:
        """Events above a revision, or from the oldest one kept, with their hashes, as far as they are folded here.
        Blocks.

        Read from the log itself, not from memory: the result is what would be found after a restart. Raises
        RevisionGone below the oldest entry of a trimmed log.
        """
        after = self._kept_after(after)
        if after >= self.log.head():
            return []
        events = islice(self.log.follow(after, self.log.hash_of(after)), limit)
        return [each for each in events if each[0].revision <= self.revision]

    def exported(self, after: int | None) -> Iterator[str]:
        """Yields the same events as lines that can be verified on their own; blocks. Raises RevisionGone at once."""
        return audit.lines(self.log, self._kept_after(after))

    def _kept_after(self, after: int | None) -> int:
        first = self.log.first()
        if after is not None and after < first - 1:
            raise RevisionGone(
                f"The log begins at revision {first}: what was before is in the archive that was made when it was "
                f"trimmed. Leave `after` out to begin there.",
                oldest=first,
            )
        return first - 1 if after is None else after

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        """Wait until the ledger reaches the revision; returns whether it did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def done_under(self, origin: Origin) -> KeyedOutcome | None:
        """The earlier use of this idempotency key, if any. Raises IdempotencyMismatch for another request."""
        known = self.ledger.done_under(origin)
        if known is not None and known.digest != (origin.digest or ""):
            raise IdempotencyMismatch(
                "This Idempotency-Key was used with another request: take a new key. See /help/api#correcting."
            )
        return known

    def count_hits(self, edit_ids: list[str], now_s: float) -> None:
        self.hits.count(edit_ids, now_s)

    # -- views

    def view(self, edit_id: str) -> EditView:
        return self._view(self.ledger.entry(edit_id))

    def turned_with(self, views: Sequence[EditView]) -> tuple[EditView, ...]:
        """The edits that answer again since the last change to these."""
        at = max((view.history[-1].revision for view in views), default=0)
        revived, _ = turned_at(self.ledger, at, [view.edit.id for view in views])
        return tuple(map(self.view, revived))

    def page(self, where: EditFilter, limit: int, cursor: str | None) -> Page:
        """A page of edits, newest first, or as `where` sorts. The cursor is the order of the last edit shown, so that
        new edits do not shift it; in another sort order it is the number shown."""
        entries, newest = self.ledger.entries_of(where.namespace), where.sort == "newest"
        if not newest:
            entries = sorted(entries, key=self._order(where.sort), reverse=True)  # read from its end, like the others
        at = len(entries)
        if cursor is not None:
            if not cursor.isdecimal() or int(cursor) > len(self.ledger.entries):
                raise InvalidRequest("`cursor` is not one that this list gave: start again without it.")
            at = bisect_left(entries, int(cursor), key=lambda entry: entry.order) if newest else min(at, int(cursor))
        views: list[EditView] = []
        while at > 0 and len(views) < limit:
            at -= 1
            if self._matches(entries[at], where):
                views.append(self._view(entries[at]))
        more = len(views) == limit and any(self._matches(entries[before], where) for before in reversed(range(at)))
        return Page(edits=tuple(views), next_cursor=str(entries[at].order if newest else at) if more else None)

    def _order(self, sort: Sort) -> Callable[[Entry], Any]:
        """The sort key, in ascending order: most hits, latest hit or earliest expiry first."""
        match sort:
            case "hits":
                return lambda entry: (-self.hits.of(entry.edit.id), -entry.order)
            case "last_hit":
                return lambda entry: (-(self.hits.last_s(entry.edit.id) or 0.0), -entry.order)
            case "expires":
                return lambda entry: (entry.edit.expires_at_s or math.inf, -entry.order)
            case "question":
                return lambda entry: (entry.request.prompt.casefold(), -entry.order)
            case "oldest" | "newest":
                return lambda entry: entry.order

    def _matches(self, entry: Entry, where: EditFilter) -> bool:
        request = entry.request
        if where.id_prefix is not None and not entry.edit.id.startswith(where.id_prefix):
            return False
        if where.namespaces is not None and request.namespace not in where.namespaces:
            return False
        if where.editor is not None and entry.edit.editor != where.editor:
            return False
        if where.actor is not None and not is_by(entry.history[0].origin, where.actor, self.ledger.keys):
            return False
        if where.state is not None and self.ledger.state(entry.edit.id) is not where.state:
            return False
        if where.never_hit and self.hits.of(entry.edit.id):
            return False
        if where.expires_within_s is not None and not self._expires(entry, where.expires_within_s):
            return False
        if where.text is not None:
            text = where.text.casefold()
            return any(
                text in part.casefold() for part in (plain(request.prompt), request.target, request.subject or "")
            )
        return True

    def _expires(self, entry: Entry, within_s: float) -> bool:
        at_s, over = entry.edit.expires_at_s, entry.rolled_back or entry.expired or entry.staged_in is not None
        return at_s is not None and not over and at_s <= self._clock() + within_s

    def _view(self, entry: Entry) -> EditView:
        edit_id = entry.edit.id
        keys = self.ledger.keys
        history = tuple(
            replace(item, origin=replace(item.origin, actor=actor_of(item.origin, keys)))
            for item in history_of(self.ledger, entry)
        )
        return EditView(
            edit=replace(entry.edit, request=entry.request, report=entry.report),
            state=self.ledger.state(edit_id),
            revision=entry.touched_at,
            origin=history[0].origin,
            live=tuple((start, None if end == NEVER else end) for start, end in entry.live),
            history=history,
            hits=self.hits.of(edit_id),
            not_given=self.hits.not_given(edit_id),
            last_hit_s=self.hits.last_s(edit_id),
        )


Clock = Callable[[], float]
"""A function that returns Unix time in seconds."""
