"""Beginning again from the log as it is now, where what was applied here is no longer what it holds."""

import asyncio
import logging
from collections.abc import Callable

from app.service.following import HISTORY
from app.service.loading import Loading
from app.service.records import Records
from app.service.serving import Pins

PAUSE_S = 1.0
"""Before what failed is tried again."""
_log = logging.getLogger(__name__)


async def read_anew(records: Records, loading: Loading, pins: Pins, failed: Callable[[str], None]) -> None:
    """Ledger, rows and editions of the log as it is now; tried until it works. `failed` is told why it did not."""
    while True:
        try:
            async with records.writing:
                ledger, last_hash = await asyncio.to_thread(records.read_anew)
                await loading.clear()
                await loading.load_all(ledger)
                records.ledger, records.hash = ledger, last_hash
                records.holds.pop(HISTORY, None)
                pins.forget()
            return
        except Exception as error:
            _log.error("Rebuilding failed, and is tried again: %s", error)
            failed(str(error))
            await asyncio.sleep(PAUSE_S)
