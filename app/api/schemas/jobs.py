"""Response bodies about jobs. Independent of the service."""

import math
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.api.errors import problem_of
from app.api.schemas.base import Outgoing, utc
from app.api.schemas.edits import FailedEdit, MadeEdit, MadeEdits
from app.api.schemas.proposals import ProposalOut
from app.service.jobs import Job
from app.service.views import EditResults


class ProgressOut(Outgoing):
    """The progress of a job's phase."""

    done: int = Field(description="Steps of a fit, texts whose scope is learned, or prompts asked to verify.")
    of: int = Field(
        description="Number of steps in all, as far as it is known; a fit ends early once every edit is right."
    )
    share: float = Field(
        ge=0,
        le=1,
        description="Share of the phase's work; for a batch that is not atomic, of the work on all its edits.",
    )
    seconds_left: float | None = Field(
        description="Until that share is 1, as far as the steps made so far tell; null before there is one."
    )
    loss: float | None = Field(description="The loss of a fit.")

    @classmethod
    def of_job(cls, job: Job) -> "ProgressOut | None":
        progress = job.progress
        if progress is None:
            return None
        return cls(
            done=progress.step,
            of=progress.steps,
            share=round(min(1.0, max(0.0, progress.done)), 4),
            seconds_left=None if job.seconds_left is None else round(job.seconds_left, 2),
            loss=progress.loss if math.isfinite(progress.loss) else None,
        )


class JobOut(Outgoing):
    """Edits in the making, for clients that do not wait; `result` is the answer that POST /edit would have given."""

    id: str
    outcome: Literal["running", "done", "failed", "cancelled"]
    phase: str = Field(description="waiting, fit, scope or verify; of a job that has ended, the last that it was in.")
    progress: ProgressOut | None
    created_at: datetime
    result: MadeEdit | MadeEdits | ProposalOut | None = Field(
        description="The result of a job that is done: a proposal if the edit waits for a second person."
    )
    problem: dict[str, Any] | None = Field(description="The problem of a job that failed.")

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        return cls(
            id=job.id,
            outcome=job.outcome,
            phase=job.phase,
            progress=ProgressOut.of_job(job),
            created_at=utc(job.created_at_s),
            result=None if job.result is None else made_of(*job.result),
            problem=None if job.error is None else problem_of(job.error),
        )


def made_of(results: EditResults, batch: bool, dry_run: bool) -> MadeEdit | MadeEdits | ProposalOut:
    """The answer of POST /edit: the edits that were made, or the proposal that waits."""
    if results.proposal is not None:
        return ProposalOut.of(results.proposal)
    return edits_made(results, batch, dry_run=dry_run)


def edits_made(results: EditResults, batch: bool, *, dry_run: bool) -> MadeEdit | MadeEdits:
    """The edits of a request that did not become a proposal."""
    edits = [MadeEdit.of_result(result, dry_run=dry_run, revision=results.revision) for result in results.results]
    if not batch:
        return edits[0]
    failures = [FailedEdit(index=each.index, problem=problem_of(each.error)) for each in results.failures]
    return MadeEdits(edits=edits, revision=results.revision, failures=failures)
