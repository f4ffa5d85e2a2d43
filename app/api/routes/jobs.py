"""Jobs: edits that a client does not wait for. The routes show their progress, once or as a stream, and cancel them."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.sse import EventSourceResponse

from app.api.deps import Holder
from app.api.openapi import raises
from app.api.schemas.jobs import JobOut
from app.domain.errors import UnknownJob
from app.domain.keys import check_reach

if TYPE_CHECKING:
    from app.service.jobs import Job
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["jb_0123456789abcdef"])]


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"])

    async def known(job_id: Id, holder: Holder) -> "Job":
        job = service.jobs.job(job_id)
        if holder is not None and holder.namespaces:
            check_reach(holder, *(job.namespaces or (None,)))
        return job

    @router.get("/jobs/{job_id}", responses=raises(UnknownJob), summary="Read the progress of a job")
    async def job(job: Annotated["Job", Depends(known)]) -> JobOut:
        """`result` is set once the job is done, `problem` if it failed."""
        return JobOut.of(job)

    @router.get(
        "/jobs/{job_id}/events",
        response_class=EventSourceResponse,
        responses=raises(UnknownJob),
        summary="Listen to a job",
    )
    async def job_events(job: Annotated["Job", Depends(known)]) -> AsyncIterator[JobOut]:
        """Server-sent events: the job whenever it has news, the last one when it has ended."""
        async with aclosing(service.jobs.listen(job.id)) as jobs:
            async for each in jobs:
                yield JobOut.of(each)

    @router.delete("/jobs/{job_id}", responses=raises(UnknownJob), summary="Cancel a job")
    async def cancel_job(job: Annotated["Job", Depends(known)]) -> JobOut:
        """The fit ends at its next micro-step and nothing of it goes live; what is committed already stays."""
        return JobOut.of(await service.jobs.cancel(job.id))

    return router
