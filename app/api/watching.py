"""Work that a client waits for and watches: the events of its job in place of its result. Knows no route."""

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
"""An event comes at least so often: proxies take a silent connection for a dead one."""
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
"""For the description of a route: what it answers to `Accept: text/event-stream`."""


def is_watched(request: Request) -> bool:
    """Whether the client asks for events."""
    return EVENT_STREAM in request.headers.get("accept", "")


def watched(jobs: Jobs, job: Job) -> StreamingResponse:
    """The job whenever there is something new to tell, the last time with its result or problem. It goes on where the
    client leaves."""

    async def events() -> AsyncIterator[bytes]:
        async with aclosing(jobs.listen(job.id, EVERY_S)) as found:  # type: ignore[type-var]
            async for each in found:
                yield format_sse_event(data_str=JobOut.of(each).model_dump_json())

    headers = {**STREAM_HEADERS, "Location": f"/jobs/{job.id}"}
    return StreamingResponse(events(), media_type=EVENT_STREAM, headers=headers)
