"""Keeps a server at the head of its log, and notices when the log is unreachable or has been replaced.

A log that may lose acknowledged entries, or that holds another history than was applied here, is neither
written to nor applied: the server is not ready, and answers from what it has applied, until the log is restored or an
operator adopts the other one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from app.domain.errors import ErrataError, StoreCorrupt, StoreUnavailable
from app.service.records import Records

PERIOD_S = 1.0
"""The interval, in seconds, at which a log without news is checked for being reachable and unchanged."""
PAUSE_S = 0.2
"""The pause between attempts while the log is away, in seconds."""
RECHECK_S = 60.0
"""The interval at which the log's durability is checked, in seconds; it is also checked when the log returns."""
DURABILITY, HISTORY = "durability", "history"
_log = logging.getLogger(__name__)


class LogFollower:
    """A task beside serving. `rebuild` is awaited if the log was trimmed beyond what is folded here, or is damaged."""

    def __init__(self, records: Records, rebuild: Callable[[str], Awaitable[None]]) -> None:
        self._records = records
        self._rebuild = rebuild
        self._reached_at = time.monotonic()
        self._checked_at = time.monotonic()

    @property
    def silence_s(self) -> float:
        """Seconds since the log last answered; normally at most a little more than PERIOD_S."""
        return time.monotonic() - self._reached_at

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
                self._reached_at = time.monotonic()
            except StoreUnavailable:
                # serving continues from what is known; writes report themselves that the log is away
                self._checked_at = -RECHECK_S  # it may come back as another one
                await asyncio.sleep(PAUSE_S)
            except Exception:
                # this task must not end: without it other servers' edits and revoked keys would not be seen
                _log.exception("Following the log failed, and is tried again")
                await asyncio.sleep(PERIOD_S)

    async def _follow(self) -> None:
        records = self._records
        if time.monotonic() - self._checked_at >= RECHECK_S:
            await self._recheck()
        try:
            if await asyncio.to_thread(records.log.wait, records.revision, PERIOD_S):
                async with records.writing:
                    await records.catch_up()
            else:
                async with records.writing:
                    await asyncio.to_thread(records.check_history)
            self._release(HISTORY)
        except StoreUnavailable:
            raise
        except ErrataError as error:
            await self._at_odds(error.message)
            await asyncio.sleep(PERIOD_S)

    async def _recheck(self) -> None:
        try:
            await asyncio.to_thread(self._records.log.recheck)
            self._release(DURABILITY)
        except StoreUnavailable:
            raise
        except ErrataError as error:
            self._hold(DURABILITY, error.message)
        self._checked_at = time.monotonic()

    async def _at_odds(self, why: str) -> None:
        """Handle a log that does not continue what is folded here."""
        records = self._records
        async with records.writing:
            try:
                await asyncio.to_thread(records.check_history)
            except StoreCorrupt:
                first, head = await asyncio.to_thread(lambda: (records.log.first(), records.log.head()))
                damaged = False
            else:
                first, head = 0, records.revision  # the applied history is there, but what follows is damaged
                damaged = True
        if damaged or first > records.revision + 1:  # a snapshot replaces what is damaged or trimmed
            _log.error("The log cannot be followed: %s", why)
            await self._rebuild(why)
            return
        self._hold(
            HISTORY,
            f"the log that was applied here up to revision {records.revision} is gone. In its place is "
            f"{f'one that ends at revision {head}' if head else 'an empty one'}: put the right one back, or, if this "
            f"one is right, adopt it (errata log adopt --revision {head}).",
        )

    def _hold(self, what: str, why: str) -> None:
        if self._records.holds.get(what) != why:
            _log.error("Not ready: %s", why)
            self._records.holds[what] = why

    def _release(self, what: str) -> None:
        if self._records.holds.pop(what, None) is not None:
            _log.warning("The log is as it was again (%s): changes are accepted.", what)
