"""Snapshots of the ledger, on demand and periodically. Independent of the stores' internals and of the routes."""

import asyncio
import logging

from app.domain.errors import ErrataError, InvalidRequest
from app.domain.snapshot import records_of
from app.service.records import Clock, Records
from app.store.snapshots import Manifest, manifests, save

_log = logging.getLogger(__name__)


class Snapshots:
    """Snapshots are taken on demand only if `period_s` is 0; `min_events` new events are enough for the next."""

    def __init__(self, records: Records, clock: Clock, *, period_s: float, min_events: int) -> None:
        self._records = records
        self._clock = clock
        self._period_s = period_s
        self._min_events = min_events
        self._taking = asyncio.Lock()

    async def take(self) -> tuple[Manifest, bool]:
        """The snapshot of the newest revision, and whether it is new. Raises the store's errors."""
        records = self._records
        async with self._taking:
            async with records.writing:
                # nothing is folded meanwhile; edits are immutable, so that the rest needs no lock
                await records.catch_up()
                revision, entry_hash = records.revision, records.hash
                if not revision:
                    raise InvalidRequest("Nothing was ever edited here: there is nothing to take a snapshot of.")
                parts = await asyncio.to_thread(lambda: list(records_of(records.ledger)))
            for manifest in await self.listed():
                if (manifest.revision, manifest.hash) == (revision, entry_hash):
                    return manifest, False
            manifest = await asyncio.to_thread(save, records.log, revision, entry_hash, parts, self._clock())
            _log.info("Snapshot %s: %d edits, %d bytes", manifest.id, manifest.edits, manifest.size_bytes)
            return manifest, True

    async def listed(self) -> list[Manifest]:
        """All snapshots, newest first."""
        return await asyncio.to_thread(manifests, self._records.log)

    async def run(self) -> None:
        """Take a snapshot in each period that brings enough events. Several servers over one log take one between
        them."""
        while self._period_s:
            await asyncio.sleep(self._period_s)
            try:
                newest = next((manifest.revision for manifest in await self.listed()), 0)
                if self._records.revision - newest >= self._min_events:
                    await self.take()
            except ErrataError as error:
                _log.warning("No snapshot was taken, which is tried again: %s", error.message)
            except Exception:
                _log.exception("No snapshot was taken, which is tried again")
