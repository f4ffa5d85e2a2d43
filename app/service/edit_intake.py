"""The entrance to edits: repeated idempotency keys, requests that are live already, and batches, atomic or not."""

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
from app.service.views import EditFailure, EditOptions, EditResult, EditResults, OnProgress

PHASES = ("fit", "scope", "verify")


class EditIntake:
    """Decides which edits to make, and has them made."""

    def __init__(self, records: Records, pipeline: EditPipeline) -> None:
        self._records, self._pipeline = records, pipeline
        self._under_way: dict[str, asyncio.Lock] = {}

    async def edit(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        """Commit edits, or try them.

        Raises EditRejected, ScopeConflict, PreconditionFailed or IdempotencyMismatch.
        """
        if not 1 <= len(requests) <= MAX_BATCH_EDITS:
            raise InvalidRequest(f"A batch holds 1 to {MAX_BATCH_EDITS} edits; this one has {len(requests)}.")
        if options.batch and not options.atomic:
            return await self._each(requests, origin, options)
        key = origin.idempotency_key
        if key is None or options.dry_run:
            return await self._edit(requests, origin, options)
        origin = replace(origin, digest=digest_of(requests, options.batch))
        lock = self._under_way.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                await self._caught_up()
                known = known_under(self._records, origin)
                return known or await self._edit(requests, origin, options)
        finally:
            if not lock.locked():
                self._under_way.pop(key, None)

    async def _caught_up(self) -> None:
        """Catch up with the log: the key may have been used on another server, or here with its answer lost."""
        async with self._records.writing:
            await self._records.catch_up()

    async def _each(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        """Make each edit on its own, one after the other, and collect the errors of those that could not be made."""
        results: list[EditResult] = []
        failures: list[EditFailure] = []
        for index, request in enumerate(requests):
            on_progress = progress_of_one(options.on_progress, index, len(requests))
            mine = replace(options, batch=False, on_progress=on_progress)
            try:
                result = await self.edit([request], part_of(origin, request.promoted_from or index), mine)
                results.extend(result.results)
            except ErrataError as error:
                failures.append(EditFailure(index=index, error=error))
        return EditResults(results=tuple(results), revision=self._records.revision, failures=tuple(failures))

    async def _edit(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        live = None if options.dry_run else already_live(self._records, requests)
        return live or await self._pipeline.make(requests, origin, options)

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit, in one step, edits that were fitted elsewhere on this very model, once they are verified here.
        `fitted` has (request, editor key, fit) for each.

        Raises the errors of `edit`, and IncompatibleEdit.
        """
        live = already_live(self._records, [request for request, _, _ in fitted])
        return live or await self._pipeline.adopt(fitted, origin)


def progress_of_one(on_progress: OnProgress, index: int, count: int) -> OnProgress:
    """A callback that reports the progress of one of several edits as that of all; fit, scope and verification count as
    a third each."""

    def report(phase: str, progress: FitProgress | None) -> None:
        begun = index + PHASES.index(phase) / len(PHASES) if phase in PHASES else index
        now = progress or FitProgress(step=0, steps=1, loss=math.nan)
        on_progress(phase, now.within(begun, 1 / len(PHASES), count))

    return report
