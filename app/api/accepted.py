"""Responses with status 202: a job that runs on, or a proposal that waits. Independent of routes."""

import re

from fastapi.responses import JSONResponse

from app.api.schemas.jobs import JobOut
from app.api.schemas.proposals import ProposalOut
from app.service.jobs import Job

_ASYNC = re.compile(r"(^|,)\s*respond-async\s*($|[,;])", re.IGNORECASE)


def prefers_job(prefer: str) -> bool:
    """True if a `Prefer` header (RFC 7240) asks for a job in place of the result."""
    return _ASYNC.search(prefer) is not None


def job_accepted(job: Job) -> JSONResponse:
    """The job that carries out the request. `Location` leads to it."""
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
    return JSONResponse(JobOut.of(job).model_dump(mode="json"), status_code=202, headers=headers)


def proposal_accepted(proposal: ProposalOut) -> JSONResponse:
    """The proposal that the request became. `Location` leads to it."""
    headers = {"Location": f"/proposals/{proposal.id}"}
    return JSONResponse(proposal.model_dump(mode="json"), status_code=202, headers=headers)
