"""Starting again from the present log, when it no longer holds what was applied here."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from app.domain.errors import ErrataError, StateConflict
from app.domain.events import Origin
from app.service.edit_loader import EditLoader
from app.service.log_follower import HISTORY
from app.service.pins import Pins
from app.service.records import Records

PAUSE_S = 1.0
"""The pause before a new attempt, in seconds."""
_log = logging.getLogger(__name__)


async def check_adopted(records: Records, revision: int, origin: Origin) -> None:
    """Raises StateConflict unless another log has taken the applied one's place and ends at this revision."""
    head = await asyncio.to_thread(records.log.head)
    if HISTORY not in records.holds:
        raise StateConflict("The log is the one that was applied here: there is nothing to adopt.")
    if head != revision:
        raise StateConflict(f"The log ends at revision {head}, not {revision}: look at it again.", revision=head)
    _log.warning("%s adopts the log that ends at revision %d: %s", origin.actor, revision, origin.reason)


async def read_anew(records: Records, loader: EditLoader, pins: Pins, failed: Callable[[str], None]) -> None:
    """Read ledger, rows and editions from the present log, repeatedly until it works. `failed` is called with each
    reason."""
    while True:
        try:
            async with records.writing:
                ledger, last_hash = await asyncio.to_thread(records.read_anew)
                await loader.clear()
                await loader.load_all(ledger)
                records.ledger, records.hash = ledger, last_hash
                records.holds.pop(HISTORY, None)
                pins.forget()
                with suppress(ErrataError):  # what others published meanwhile; the follower meets an error again
                    await records.catch_up()
            return
        except Exception as error:
            _log.error("Rebuilding failed, and is tried again: %s", error)
            failed(str(error))
            await asyncio.sleep(PAUSE_S)
