"""Answers to clients that watch their work: the events of its job in place of its result. Independent of the routes."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from app.api.openapi import EVENT_STREAM, STREAM_HEADERS
from app.api.schemas.jobs import JobOut
from app.service.jobs import Job, Jobs

EVERY_S = 1.0
"""The longest interval between two events, in seconds: proxies close a connection that stays silent."""
WATCHED: dict[str, Any] = {
    EVENT_STREAM: {
        "itemSchema": {
            "type": "object",
            "properties": {
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/JobOut"},
                }
            },
            "required": ["data"],
        }
    }
}
"""The response to `Accept: text/event-stream`, for the OpenAPI description of a route."""


def is_watched(request: Request) -> bool:
    """True if the client asks for events."""
    return EVENT_STREAM in request.headers.get("accept", "")


def watched(jobs: Jobs, job: Job) -> StreamingResponse:
    """Stream the job each time it has news, the last time with its result or problem. The job continues if the client
    disconnects."""

    async def events() -> AsyncIterator[bytes]:
        async with aclosing(jobs.listen(job.id, EVERY_S)) as updates:
            async for each in updates:
                yield format_sse_event(data_str=JobOut.of(each).model_dump_json())

    headers = {**STREAM_HEADERS, "Location": f"/jobs/{job.id}"}
    return StreamingResponse(events(), media_type=EVENT_STREAM, headers=headers)
