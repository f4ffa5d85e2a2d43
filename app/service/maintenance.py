"""Periodic maintenance: expires edits that are due, and releases memory that nobody can see any more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.service.edit_loader import EditLoader
from app.service.pins import Pins
from app.service.records import Clock, Records

PERIOD_S = 1.0
_log = logging.getLogger(__name__)


async def tidy(
    records: Records, loader: EditLoader, pins: Pins, expire: Callable[[], Awaitable[object]], clock: Clock
) -> None:
    """A task beside serving."""
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            ledger, now_s = records.ledger, clock()
            if records.held is None and (ledger.due(now_s) or ledger.approval.due(now_s)):
                await expire()
            async with records.writing:
                await loader.release(pins.oldest, pins.in_use)
        except Exception as error:  # the store may be away for a while; the next round tries again
            _log.warning("Tidying up failed, and is tried again: %s", error)
