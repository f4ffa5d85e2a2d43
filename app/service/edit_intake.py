"""The entrance to edits: repeated idempotency keys, requests that stand already, and batches, atomic or not."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from app.domain.edit import MAX_BATCH_EDITS, EditRequest
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import Origin
from app.editors.base import FitProgress, Fitted
from app.service.edit_pipeline import EditPipeline
from app.service.idempotency import already_live, digest_of, known_under, part_of
from app.service.records import Records
from app.service.views import EditFailure, EditResult, EditResults, OnProgress, silent

PHASES = ("fit", "scope", "verify")


class EditIntake:
    """Decides which edits to make, and has them made."""

    def __init__(self, records: Records, pipeline: EditPipeline) -> None:
        self._records, self._pipeline = records, pipeline
        self._under_way: dict[str, asyncio.Lock] = {}

    async def edit(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool,
        batch: bool,
        dry_run: bool,
        tell: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        """Commit edits, all or none if `atomic`; `read` is the revision that the requester has read.

        Raises EditRejected, ScopeConflict, PreconditionFailed or IdempotencyMismatch.
        """
        if not 1 <= len(requests) <= MAX_BATCH_EDITS:
            raise InvalidRequest(f"A batch holds 1 to {MAX_BATCH_EDITS} edits; this one has {len(requests)}.")
        if batch and not atomic:
            return await self._each(requests, origin, dry_run=dry_run, tell=tell, read=read)
        key = origin.idempotency_key
        if key is None or dry_run:
            return await self._edit(requests, origin, batch=batch, dry_run=dry_run, tell=tell, read=read)
        origin = replace(origin, digest=digest_of(requests, batch))
        lock = self._under_way.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                await self._caught_up()
                known = known_under(self._records, origin)
                return known or await self._edit(requests, origin, batch=batch, dry_run=False, tell=tell, read=read)
        finally:
            if not lock.locked():
                self._under_way.pop(key, None)

    async def _caught_up(self) -> None:
        """Catch up with the log: the key may have been used on another server, or here with its answer lost."""
        async with self._records.writing:
            await self._records.catch_up()

    async def _each(
        self, requests: Sequence[EditRequest], origin: Origin, *, dry_run: bool, tell: OnProgress, read: int | None
    ) -> EditResults:
        """Make each edit on its own, one after the other, and collect the errors of those that could not be made."""
        results: list[EditResult] = []
        failures: list[EditFailure] = []
        for index, request in enumerate(requests):
            part, mine = part_of(origin, request.promoted_from or index), _one_of(tell, index, len(requests))
            try:
                made = await self.edit([request], part, atomic=True, batch=False, dry_run=dry_run, tell=mine, read=read)
                results.extend(made.results)
            except ErrataError as error:
                failures.append(EditFailure(index=index, error=error))
        return EditResults(results=tuple(results), revision=self._records.revision, failures=tuple(failures))

    async def _edit(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        batch: bool,
        dry_run: bool,
        tell: OnProgress,
        read: int | None,
    ) -> EditResults:
        stands = None if dry_run else already_live(self._records, requests)
        return stands or await self._pipeline.make(requests, origin, batch=batch, dry_run=dry_run, tell=tell, read=read)

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit, in one step, edits that were fitted elsewhere on this very model, once they are verified here.
        `fitted` has (request, adaptor, fit) for each.

        Raises the errors of `edit`, and IncompatibleEdit.
        """
        stands = already_live(self._records, [request for request, _, _ in fitted])
        return stands or await self._pipeline.adopt(fitted, origin)


def _one_of(tell: OnProgress, index: int, count: int) -> OnProgress:
    """A callback that reports the progress of one of several edits as that of all; fit, scope and verification count as
    a third each."""

    def report(phase: str, progress: FitProgress | None) -> None:
        begun = index + PHASES.index(phase) / len(PHASES) if phase in PHASES else index
        now = progress or FitProgress(step=0, steps=1, loss=math.nan)
        tell(phase, now.within(begun, 1 / len(PHASES), count))

    return report
