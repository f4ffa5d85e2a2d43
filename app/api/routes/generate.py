"""Routes that ask the model: whole answers and streams. Independent of the engine: the layers below pin and decode a
request."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse

from app.api.deps import holder_of, while_connected
from app.api.errors import problem_of
from app.api.generation_stream import events_of
from app.api.metrics import Metrics
from app.api.openapi import EDITS_HEADERS, EVENT_STREAM, STREAM_HEADERS, edits_headers, raises
from app.api.schemas.generate import EXAMPLES, GenerateAnswer, GenerateBody, StreamEvent
from app.api.schemas.server import Problem
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
from app.domain.keys import check_reach

if TYPE_CHECKING:
    from app.service.service import Service

DocumentedBody = Annotated[GenerateBody, Body(openapi_examples=EXAMPLES)]
ERRORS = raises(UnknownEdit, RevisionGone, QueueFull, RevisionAhead, RequestCancelled, DeadlineExceeded, body=True)
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
OR_STREAM = {**ERRORS, 200: {"content": {EVENT_STREAM: {"itemSchema": EVENT}}, "headers": EDITS_HEADERS}}


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream whose first token has arrived: from here on an error can no longer be a status."""

    body: GenerateBody
    parameters: GenerationParameters
    items: AsyncIterator[tuple[int, Token | Generation]]
    began: float


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["generate"])

    @asynccontextmanager
    async def streaming(request: Request, body: GenerateBody) -> AsyncIterator[OpenStream]:
        began = time.perf_counter()
        parameters = body.parameters.to_domain()
        check_reach(holder_of(request), parameters.namespace)
        if (body.parameters.n or 1) > 1:
            raise InvalidRequest("`parameters.n` must be 1 in a stream: ask /generate, or stream them one by one.")
        async with aclosing(service.stream([body.inputs], parameters)) as stream:
            first = await while_connected(request, anext(stream))
            metrics.first_token(began)
            yield OpenStream(body, parameters, _put_back(first, stream), began)

    async def opened(request: Request, body: DocumentedBody) -> AsyncIterator[OpenStream]:
        async with streaming(request, body) as stream:
            yield stream

    async def answered(
        request: Request, body: DocumentedBody, response: Response
    ) -> AsyncIterator[GenerateAnswer | OpenStream]:
        if body.stream:
            async with streaming(request, body) as stream:
                yield stream
        else:
            yield await whole(request, body, response)

    async def whole(request: Request, body: GenerateBody, response: Response) -> GenerateAnswer:
        began = time.perf_counter()
        parameters, n = body.parameters.to_domain(), body.parameters.n or 1
        check_reach(holder_of(request), parameters.namespace)
        generations = await while_connected(request, service.generate_all([body.inputs], parameters, n))
        for generation in generations:
            metrics.generated(generation, began)
        response.headers.update(edits_headers(generations))
        return GenerateAnswer.of(body, generations)

    @router.post("/generate", responses=OR_STREAM, response_model_exclude_unset=True, summary="Answer a prompt")
    async def generate(answer: Annotated[Any, Depends(answered)]) -> GenerateAnswer:
        """Returns the whole answer at once, or with `stream` the events of /generate_stream. A client that disconnects
        ends the generation."""
        return _streamed(answer, metrics) if isinstance(answer, OpenStream) else answer  # type: ignore[return-value]

    @router.post(
        "/", responses=OR_STREAM, response_model_exclude_unset=True, summary="Answer a prompt, at TGI's own address"
    )
    async def generate_compat(answer: Annotated[Any, Depends(answered)]) -> list[GenerateAnswer]:
        """The answer of /generate in a list of one, as TGI answers there."""
        return _streamed(answer, metrics) if isinstance(answer, OpenStream) else [answer]  # type: ignore[return-value]

    @router.post(
        "/generate_stream",
        responses={**ERRORS, 200: {"model": StreamEvent, "description": "One token per event"}},
        summary="Answer a prompt, token by token",
    )
    async def generate_stream(stream: Annotated[OpenStream, Depends(opened)]) -> Response:
        """Server-sent events, one `data:` for each token; the last has `generated_text` and `details`.

        An error after the first token comes as a last `data:` that is a problem. A client that disconnects ends the
        generation.
        """
        return _streamed(stream, metrics)

    return router


def _streamed(stream: OpenStream, metrics: Metrics) -> Response:
    return StreamingResponse(_lines(stream, metrics), media_type=EVENT_STREAM, headers=STREAM_HEADERS)


async def _lines(stream: OpenStream, metrics: Metrics) -> AsyncIterator[str]:
    # written here rather than by FastAPI, whose events pass through two tasks and a queue, at a twentieth of the
    # throughput
    try:
        async with aclosing(events_of(stream.body, stream.parameters, _counted(stream, metrics))) as events:
            async for event in events:
                yield f"data: {event.model_dump_json()}\n\n"
    except Exception as error:
        problem = problem_of(error)
        metrics.error(problem["status"])
        tgi_fields = {"error": problem["detail"], "error_type": "generation"}  # where TGI's clients look for an error
        yield f"data: {Problem(**problem, **tgi_fields).model_dump_json()}\n\n"


async def _put_back(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for item in rest:
        yield item


async def _counted(stream: OpenStream, metrics: Metrics) -> AsyncIterator[Token | Generation]:
    async for _, item in stream.items:
        if isinstance(item, Generation):
            metrics.generated(item, stream.began)
        yield item
