"""Keeps a server at its log's head, whoever writes to it, and knows when the log is away or its history replaced."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from app.domain.errors import ErrataError, StoreUnavailable
from app.service.records import Records

PERIOD_S = 1.0
"""Without news the log is asked this often whether it is there, and still the same."""
PAUSE_S = 0.2
"""Between attempts while it is away."""
_log = logging.getLogger(__name__)


class Follower:
    """A task of its own beside serving. `rebuild` is awaited when what this server has folded is not in the log."""

    def __init__(self, records: Records, rebuild: Callable[[str], Awaitable[None]]) -> None:
        self._records = records
        self._rebuild = rebuild
        self._reached_at = time.monotonic()

    @property
    def silence_s(self) -> float:
        """Seconds since the log last answered; a little above PERIOD_S at most while all is well."""
        return time.monotonic() - self._reached_at

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
                self._reached_at = time.monotonic()
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)  # what is known is served on; writes say themselves that it is away
            except ErrataError as error:
                _log.error("The log cannot be followed: %s", error.message)
                await self._rebuild(error.message)
                await asyncio.sleep(PERIOD_S)
            except Exception:
                # this task must not end: without it neither edits nor revoked keys of other servers would be seen
                _log.exception("Following the log failed, and is tried again")
                await asyncio.sleep(PERIOD_S)

    async def _follow(self) -> None:
        records = self._records
        if await asyncio.to_thread(records.log.wait, records.revision, PERIOD_S):
            async with records.writing:
                await records.catch_up()
            return
        async with records.writing:
            await asyncio.to_thread(records.check_history)
