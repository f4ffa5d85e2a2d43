"""A queue of fits: requests that arrive while one runs are fitted together, and each row stops on its own.

Applies only to editors whose edits depend on nothing but their request; fits of the others begin at once.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial

from app.editors.base import FitProgress, FitRequest, Fitted
from app.engine.client import EngineClient
from app.engine.editions import Edition
from app.service.views import OnProgress, silent

REPORT_EVERY_S = 0.1
AT_ONCE = 64
"""The most requests that are fitted together. With more, the first requester would wait for all."""


@dataclass(eq=False, slots=True)
class _Group:
    """The requests of one caller, taken from the front, a share in each round; `fitted` grows with the rounds."""

    requests: deque[FitRequest]
    wanted: int
    live: Edition
    on_progress: OnProgress
    done: asyncio.Future[list[Fitted]]
    fitted: list[Fitted] = field(default_factory=list)


class FitQueue:
    """The queue for everything to be fitted. Independent of drafts and of the log."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._queues: dict[str, list[_Group]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def fit(
        self, editor: str, requests: Sequence[FitRequest], live: Edition, on_progress: OnProgress = silent
    ) -> list[Fitted]:
        """The fit of each request, in order. A cancelled call leaves the queue, or ends its fit at the next step."""
        if not self._engine.capabilities(editor).independent:
            return await self._learn(editor, requests, live, [on_progress])
        done: asyncio.Future[list[Fitted]] = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(editor, [])
        queue.append(_Group(deque(requests), len(requests), live, on_progress, done))
        if editor not in self._running:
            # a context of its own: its log lines are not those of the request that happened to come first
            self._running[editor] = asyncio.create_task(self._work(editor, queue), context=Context())
        return await done

    async def _work(self, editor: str, queue: list[_Group]) -> None:
        try:
            while queue:
                await self._round(editor, queue)
                queue[:] = [group for group in queue if not group.done.done()]
        except Exception as error:  # a fault of the server: nobody may wait forever
            for group in queue:
                if not group.done.done():
                    group.done.set_exception(error)
            queue.clear()
        finally:
            del self._running[editor]

    async def _round(self, editor: str, queue: Sequence[_Group]) -> None:
        """Fit one request of each group in turn, until there are enough, so that a single edit does not wait for all of
        a large batch."""
        groups = [group for group in queue if not group.done.done()]
        taken: list[tuple[_Group, FitRequest]] = []
        waiting = deque(group for group in groups if group.requests)
        while waiting and len(taken) < AT_ONCE:
            group = waiting.popleft()
            taken.append((group, group.requests.popleft()))
            if group.requests:
                waiting.append(group)
        part = [group for group in groups if any(each is group for each, _ in taken)]
        listeners = [_for(group, sum(each is group for each, _ in taken)) for group in part]
        learning = self._learn(editor, [request for _, request in taken], part[0].live, listeners)
        fit = asyncio.create_task(learning)

        def look(_done: object) -> None:
            if all(group.done.done() for group in part):  # all callers that waited for it have left
                fit.cancel()

        for group in part:
            group.done.add_done_callback(look)
        try:
            fitted = await fit
        except asyncio.CancelledError:
            if not fit.cancelled():
                raise
            return
        except Exception as error:
            await self._apart(editor, part, taken, error)
            return
        for (group, _), each in zip(taken, fitted, strict=True):
            _give(group, [each])

    async def _apart(
        self, editor: str, part: Sequence[_Group], taken: Sequence[tuple[_Group, FitRequest]], error: Exception
    ) -> None:
        """Fit each group on its own, because one group's request may have spoilt the fit of all."""
        for group in part:
            mine = [request for owner, request in taken if owner is group]
            if group.done.done():
                continue
            if len(part) == 1:
                group.done.set_exception(error)
                continue
            try:
                _give(group, await self._learn(editor, mine, group.live, [group.on_progress]))
            except Exception as own:
                if not group.done.done():
                    group.done.set_exception(own)

    async def _learn(
        self, editor: str, requests: Sequence[FitRequest], live: Edition, on_progress: Sequence[OnProgress]
    ) -> list[Fitted]:
        loop = asyncio.get_running_loop()

        def report(phase: str, progress: FitProgress) -> None:
            for each in on_progress:
                with suppress(RuntimeError):  # the loop is closing: nobody listens
                    loop.call_soon_threadsafe(each, phase, progress)

        def scoped() -> Iterator[Fitted]:
            due_s = 0.0
            for at, (each, request) in enumerate(zip(fitted, requests, strict=False)):
                if time.monotonic() >= due_s:  # every waiting caller is notified each time
                    report("scope", FitProgress(step=at, steps=len(requests), loss=math.nan))
                    due_s = time.monotonic() + REPORT_EVERY_S
                yield self._engine.with_scope(editor, each, request)

        fitted = await self._engine.fit(editor, requests, live, partial(report, "fit"))
        return await asyncio.to_thread(lambda: list(scoped()))


def _for(group: _Group, mine: int) -> OnProgress:
    """A callback that reports a round's progress as that of one group, which may take several rounds."""
    before, whole = len(group.fitted), group.wanted

    def on_progress(phase: str, progress: FitProgress | None) -> None:
        group.on_progress(phase, None if progress is None else progress.within(before, mine, whole))

    return on_progress


def _give(group: _Group, fitted: Sequence[Fitted]) -> None:
    group.fitted.extend(fitted)
    if len(group.fitted) == group.wanted and not group.done.done():
        group.done.set_result(group.fitted)
