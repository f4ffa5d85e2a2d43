"""Work that a client does not wait for: the client asks for its progress, listens, or cancels it.

Jobs are in this server's memory: what a job has committed is in the log, and a job that is lost with its server is
requested again under its Idempotency-Key.
"""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from app.domain.errors import QueueFull, UnknownJob
from app.service.views import OnProgress

if TYPE_CHECKING:
    from app.editors.base import FitProgress  # imports torch, which jobs do without

Clock = Callable[[], float]

Outcome = Literal["running", "done", "failed", "cancelled"]
MOST_RUNNING = 1_000
MOST_KEPT = 1_000
"""The most finished jobs that are kept, the newest."""
CHECK_EVERY_S = 0.2
"""The least time between two progress reports, in seconds: a fit takes dozens of steps a second."""


@dataclass(slots=True)
class Job:
    """`result` is the value that the work returned, `error` what it raised. `phase` is waiting, fit, scope or
    verify."""

    id: str
    created_at_s: float
    outcome: Outcome = "running"
    phase: str = "waiting"
    progress: "FitProgress | None" = None
    seconds_left: float | None = None
    """The seconds left of its phase, or of a whole batch whose edits are made one by one, as reported last."""
    result: Any = None
    error: Exception | None = None
    previews: frozenset[str] = frozenset()
    """The namespaces of a preview, which may quote their recent prompts."""
    namespaces: frozenset[str] = frozenset()
    """The namespaces that the job is about."""
    changes: int = 0
    """The number of changes so far, by which listeners notice news."""

    def end(self, outcome: Outcome) -> None:
        self.outcome, self.changes, self.seconds_left = outcome, self.changes + 1, None


class TimeEstimate:
    """The pace of one job. The completed share of a phase grows to 1; if it falls, a new phase has begun and is timed
    from there.

    Time counts from the first completed share: what precedes it, such as a fit's pass over its contexts, happens once
    and says nothing about the steps. Between two shares the estimate counts down.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._done = 0.0
        self._began_s = self._reported_s = clock()
        self._left_s: float | None = None

    def left_s(self, progress: "FitProgress | None") -> float | None:
        """The remaining time in seconds; None while it is unknown."""
        now_s, done = self._clock(), 0.0 if progress is None else progress.done
        if done < self._done or not self._done:
            self._began_s, self._first, self._done, self._left_s = now_s, done, done, None
        elif done > self._done:
            self._done, self._reported_s = done, now_s
            self._left_s = (now_s - self._began_s) * (1 - done) / (done - self._first)
        if self._left_s is None or progress is None or not progress.timed:
            return None
        return max(0.0, self._left_s - (now_s - self._reported_s))


class Jobs:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(
        self,
        work: Callable[[OnProgress], Awaitable[Any]],
        *,
        previews: Iterable[str] = (),
        namespaces: Iterable[str] = (),
    ) -> Job:
        """Start the work at once, passing it a callback for its progress. Raises QueueFull."""
        if len(self._tasks) >= MOST_RUNNING:
            raise QueueFull(f"{len(self._tasks)} jobs run already: try again shortly.", retry_after_s=1)
        job = Job(f"jb_{uuid.uuid4().hex[:16]}", self._clock(), previews=frozenset(previews))
        job.namespaces = frozenset(namespaces) | job.previews
        self._jobs[job.id] = job
        self._tasks[job.id] = task = asyncio.create_task(self._run(job, work))
        task.add_done_callback(lambda _: self._ended(job))
        return job

    async def _run(self, job: Job, work: Callable[[OnProgress], Awaitable[Any]]) -> None:
        pace = TimeEstimate()

        def on_progress(phase: str, progress: "FitProgress | None") -> None:
            if job.outcome == "running":
                job.phase, job.progress, job.changes = phase, progress, job.changes + 1
                job.seconds_left = pace.left_s(progress)

        try:
            job.result = await work(on_progress)
            job.end("done")
        except asyncio.CancelledError:
            job.end("cancelled")
        except Exception as error:
            job.error = error
            job.end("failed")

    def _ended(self, job: Job) -> None:
        if job.outcome == "running":  # cancelled before it began
            job.end("cancelled")
        del self._tasks[job.id]
        ended = [each.id for each in self._jobs.values() if each.outcome != "running"]
        for old in ended[: max(0, len(ended) - MOST_KEPT)]:
            del self._jobs[old]

    def job(self, job_id: str) -> Job:
        """The job with this id. Raises UnknownJob."""
        if job_id not in self._jobs:
            raise UnknownJob(
                f"No job here has the id {job_id!r}: jobs are kept by the server that took them, the last {MOST_KEPT}. "
                "What it made is in GET /edits."
            )
        return self._jobs[job_id]

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. What is committed stays, and a commit under way is finished first. A job that has ended is
        unchanged."""
        job, task = self.job(job_id), self._tasks.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return job

    async def forget_previews(self, namespace: str | None = None) -> None:
        """Delete previews of a namespace, or all: they quote recent prompts, which are being deleted. Running ones are
        cancelled."""
        for job in list(self._jobs.values()):
            if job.previews and (namespace is None or namespace in job.previews):
                if job.id in self._tasks:
                    await self.cancel(job.id)
                self._jobs.pop(job.id, None)

    async def listen(self, job_id: str, at_least_every_s: float = math.inf) -> AsyncGenerator[Job, None]:
        """Yields the job now and each time that it has news, the last time when it has ended."""
        job, sent, sent_at = self.job(job_id), -1, time.monotonic()
        while True:
            if job.changes != sent or time.monotonic() >= sent_at + at_least_every_s:
                sent, sent_at = job.changes, time.monotonic()
                yield job
            if job.outcome != "running":
                return
            await asyncio.wait([self._tasks[job_id]], timeout=CHECK_EVERY_S)

    async def stop(self) -> None:
        for job_id in list(self._tasks):
            await self.cancel(job_id)
