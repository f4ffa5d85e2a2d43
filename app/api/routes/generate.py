"""Asking the model: whole answers and streams. Knows no engine: a request is pinned and decoded below."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse

from app.api.deps import while_connected
from app.api.errors import problem_of
from app.api.metrics import Metrics
from app.api.openapi import EVENT_STREAM, STREAM_HEADERS, raises
from app.api.schemas.generate import EXAMPLES, GenerateAnswer, GenerateBody, StreamEvent
from app.api.schemas.server import Problem
from app.api.streaming import events_of
from app.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RevisionAhead,
    RevisionGone,
    UnknownEdit,
)
from app.domain.generation import Generation, GenerationParameters, Token

if TYPE_CHECKING:
    from app.service.service import Service

Asked = Annotated[GenerateBody, Body(openapi_examples=EXAMPLES)]
ERRORS = raises(UnknownEdit, RevisionGone, QueueFull, RevisionAhead, RequestCancelled, DeadlineExceeded, body=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream whose first token is there: from here on errors can no longer be a status."""

    body: GenerateBody
    parameters: GenerationParameters
    items: AsyncIterator[tuple[int, Token | Generation]]
    began: float


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["generate"])

    async def opened(request: Request, body: Asked) -> AsyncIterator[Opened]:
        began = time.perf_counter()
        parameters = body.parameters.to_domain()
        if (body.parameters.n or 1) > 1:
            raise InvalidRequest("`parameters.n` must be 1 in a stream: ask /generate, or stream them one by one.")
        async with aclosing(service.stream([body.inputs], parameters)) as stream:  # type: ignore[type-var]
            first = await while_connected(request, anext(stream))
            metrics.first_token(began)
            yield Opened(body, parameters, _put_back(first, stream), began)

    @router.post("/generate", responses=ERRORS, response_model_exclude_unset=True, summary="Answer a prompt")
    async def generate(request: Request, body: Asked) -> GenerateAnswer:
        """The whole answer at once. A client that goes away ends the generation."""
        began = time.perf_counter()
        parameters, n = body.parameters.to_domain(), body.parameters.n or 1
        generations = await while_connected(request, service.generate_all([body.inputs], parameters, n))
        for generation in generations:
            metrics.generated(generation, began)
        return GenerateAnswer.of(body, generations)

    @router.post(
        "/generate_stream",
        responses={**ERRORS, 200: {"model": StreamEvent, "description": "A token an event"}},
        summary="Answer a prompt, token by token",
    )
    async def generate_stream(stream: Annotated[Opened, Depends(opened)]) -> Response:
        """Server-sent events: one `data:` a token; the last has `generated_text` and `details`.

        An error after the first token comes as a last `data:` that is a problem. A client that goes away ends the
        generation.
        """
        return StreamingResponse(_lines(stream, metrics), media_type=EVENT_STREAM, headers=STREAM_HEADERS)

    return router


async def _lines(stream: Opened, metrics: Metrics) -> AsyncIterator[str]:
    # written here, not by FastAPI: its events pass through two tasks and a queue, a twentieth of the throughput
    try:
        async with aclosing(events_of(stream.body, stream.parameters, _counted(stream, metrics))) as events:  # type: ignore[type-var]
            async for event in events:
                yield f"data: {event.model_dump_json()}\n\n"
    except Exception as error:
        found = problem_of(error)
        metrics.error(found["status"])
        yield f"data: {Problem(**found).model_dump_json()}\n\n"


async def _put_back(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for item in rest:
        yield item


async def _counted(stream: Opened, metrics: Metrics) -> AsyncIterator[Token | Generation]:
    async for _, item in stream.items:
        if isinstance(item, Generation):
            metrics.generated(item, stream.began)
        yield item
