"""What the server answers about jobs. Knows no service."""

import math
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.api.errors import problem_of
from app.api.schemas.base import Outgoing, utc
from app.api.schemas.edits import FailedEdit, MadeEdit, MadeEdits
from app.service.jobs import Job
from app.service.views import EditResults


class ProgressOut(Outgoing):
    """How far a fit has come. It ends early once every edit is right."""

    step: int
    most_steps: int
    loss: float | None


class JobOut(Outgoing):
    """Edits in the making, for whoever does not wait: what POST /edit would have answered, once it is known."""

    id: str
    outcome: Literal["running", "done", "failed", "cancelled"]
    phase: str = Field(description="waiting, fit or verify; of a job that has ended, the last that it was in.")
    progress: ProgressOut | None
    created_at: datetime
    result: MadeEdit | MadeEdits | None = Field(description="Of a job that is done.")
    problem: dict[str, Any] | None = Field(description="Of a job that failed.")

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        step = job.progress
        loss = step.loss if step is not None and math.isfinite(step.loss) else None
        return cls(
            id=job.id,
            outcome=job.outcome,
            phase=job.phase,
            progress=None if step is None else ProgressOut(step=step.step, most_steps=step.steps, loss=loss),
            created_at=utc(job.created_at_s),
            result=None if job.result is None else made_of(*job.result),
            problem=None if job.error is None else problem_of(job.error),
        )


def made_of(results: EditResults, batch: bool, dry_run: bool) -> MadeEdit | MadeEdits:
    """What POST /edit answers."""
    made = [MadeEdit.made(result, dry_run=dry_run, revision=results.revision) for result in results.results]
    if not batch:
        return made[0]
    failures = [FailedEdit(index=each.index, problem=problem_of(each.error)) for each in results.failures]
    return MadeEdits(edits=made, revision=results.revision, failures=failures)
