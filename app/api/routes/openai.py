"""/v1 as OpenAI serves it: completions, chats, models. Prompts, edits and errors are the same as everywhere else."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from app.api.deps import holder_of, while_connected
from app.api.errors import problem_of
from app.api.metrics import Metrics
from app.api.openai_choices import Chats, Completions
from app.api.openai_errors import openai_problem
from app.api.openapi import EDITS_HEADERS, EVENT_STREAM, STREAM_HEADERS, edits_headers, raises
from app.api.schemas.openai import CHATS, COMPLETIONS, ChatBody, CompletionBody
from app.api.schemas.openai_answers import ChatCompletion, Completion, Model, Models, OpenAIProblem, Usage, head
from app.domain.errors import (
    DeadlineExceeded,
    QueueFull,
    RequestCancelled,
    RevisionAhead,
    RevisionGone,
    UnknownEdit,
    UnknownModel,
)
from app.domain.generation import Generation, GenerationParameters, Token
from app.domain.keys import check_reach

if TYPE_CHECKING:
    from app.service.service import Service

ERRORS = raises(
    UnknownModel, UnknownEdit, RevisionGone, QueueFull, RevisionAhead, RequestCancelled, DeadlineExceeded, body=True
)
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAMED = {EVENT_STREAM: {"itemSchema": EVENT}}

UNNAMED = ("tgi", "dummy")
"""Names that Hugging Face's clients give to a model that they know only by its server's address. Answers may be asked
for under these names; no model is listed under them."""

_Body = CompletionBody | ChatBody
_Shape = Completions | Chats


@dataclass(frozen=True, slots=True)
class OpenCompletion:
    """A request whose first token has arrived: from here on a stream's error can no longer be a status."""

    body: _Body
    shape: _Shape
    items: AsyncIterator[tuple[int, Token | Generation]]
    answers: int
    request_id: str
    prompt_tokens: int | None
    """The tokens of all prompts, if every chunk has the usage so far."""


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["openai"], responses={400: {"model": OpenAIProblem}})
    started = int(time.time())

    @asynccontextmanager
    async def opened(
        request: Request, body: _Body, prompts: list[str], parameters: GenerationParameters, shape: _Shape
    ) -> AsyncIterator[OpenCompletion]:
        began = time.perf_counter()
        check_reach(holder_of(request), parameters.namespace)
        async with aclosing(service.stream(prompts, parameters, body.answers)) as stream:
            first = await while_connected(request, anext(stream))
            metrics.first_token(began)
            items = _counted(first, stream, metrics, began)
            fed = await asyncio.to_thread(service.answers.prompt_tokens, prompts) if body.counts_as_it_goes else None
            yield OpenCompletion(body, shape, items, len(prompts) * body.answers, request.state.request_id, fed)

    def check_served(model: str | None, *also: str) -> None:
        if model not in (None, service.answers.model_name, *also):
            raise UnknownModel(f"`model` {model!r} is not served here: it is {service.answers.model_name!r}.")

    async def completing(
        request: Request, body: Annotated[CompletionBody, Body(openapi_examples=COMPLETIONS)]
    ) -> AsyncIterator[OpenCompletion]:
        check_served(body.model, *UNNAMED)
        async with opened(request, body, body.prompts, body.to_domain(), Completions(body)) as each:
            yield each

    async def chatting(
        request: Request, body: Annotated[ChatBody, Body(openapi_examples=CHATS)]
    ) -> AsyncIterator[OpenCompletion]:
        check_served(body.model, *UNNAMED)
        # both take time with their length, and this thread also carries other requests' streams
        prompt = await asyncio.to_thread(service.answers.render, body.turns, continues=body.continues)
        parameters = await asyncio.to_thread(body.to_domain, partial(service.answers.room, prompt))
        async with opened(request, body, [prompt], parameters, Chats(body)) as each:
            yield each

    @router.post(
        "/completions",
        summary="Answer prompts, as OpenAI does",
        responses={**ERRORS, 200: {"model": Completion, "content": STREAMED, "headers": EDITS_HEADERS}},
    )
    async def openai_completion(
        request: Request, completion: Annotated[OpenCompletion, Depends(completing)]
    ) -> Response:
        """Takes prompts as they are, without a template; returns whole answers, or with `stream` one event for each
        token."""
        return await _answer(service.answers.model_name, metrics, request, completion)

    @router.post(
        "/chat/completions",
        summary="Answer a conversation",
        responses={**ERRORS, 200: {"model": ChatCompletion, "content": STREAMED, "headers": EDITS_HEADERS}},
    )
    async def openai_chat(request: Request, completion: Annotated[OpenCompletion, Depends(chatting)]) -> Response:
        """Renders the conversation with the model's chat template; an edit answers the question of the last user
        turn."""
        return await _answer(service.answers.model_name, metrics, request, completion)

    def served() -> Model:
        return Model(id=service.answers.model_name, created=started, max_model_len=service.answers.max_tokens)

    @router.get("/models", summary="The model that is served", responses=raises())
    async def openai_models() -> Models:
        return Models(data=[served()])

    @router.get("/models/{model:path}", summary="Look up a served model", responses=raises(UnknownModel))
    async def openai_model(model: str) -> Model:
        check_served(model)
        return served()

    return router


async def _answer(model: str, metrics: Metrics, request: Request, opened: OpenCompletion) -> Response:
    whole, chunk = opened.shape.kinds
    if opened.body.stream:
        events = _events(opened, head(chunk, opened.request_id, model), metrics)
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=STREAM_HEADERS)
    generations: dict[int, Generation] = {}

    async def collect() -> None:
        async for at, item in opened.items:
            if isinstance(item, Generation):
                generations[at] = item

    await while_connected(request, collect())
    in_order = [generations[at] for at in range(opened.answers)]
    choices = [opened.shape.choice(at, each) for at, each in enumerate(in_order)]
    usage = Usage.of(in_order, opened.body.answers).model_dump()
    answer = {**head(whole, opened.request_id, model), "choices": choices, "usage": usage}
    return Response(_json(answer), media_type="application/json", headers=edits_headers(in_order))


async def _events(opened: OpenCompletion, begin: dict[str, Any], metrics: Metrics) -> AsyncIterator[bytes]:
    """One chunk for each token, one with the reason why an answer ended, one with the usage if it was asked for; then
    [DONE]. Each chunk has the usage so far, if that was asked for."""
    options = opened.body.stream_options
    usage = options is not None and options.include_usage
    begin = {**begin, "usage": None} if usage else begin
    generations: dict[int, Generation] = {}
    said = 0

    def part(choice: Any) -> bytes:
        so_far = (
            {} if opened.prompt_tokens is None else {"usage": Usage.counted(opened.prompt_tokens, said).model_dump()}
        )
        return _event({**begin, **so_far, "choices": [choice]})

    try:
        for choice in opened.shape.opening(opened.answers):
            yield part(choice)
        async for at, item in opened.items:
            if isinstance(item, Generation):
                generations[at] = item
                yield part(opened.shape.last(at, item))
            else:
                said += 1
                if (chunk := opened.shape.chunk(at, item)) is not None:
                    yield part(chunk)
        if usage:
            in_order = [generations[at] for at in range(opened.answers)]
            yield _event({**begin, "choices": [], "usage": Usage.of(in_order, opened.body.answers).model_dump()})
    except Exception as error:  # the status is sent: the error can only be reported in the stream
        found_problem = openai_problem(problem_of(error))
        metrics.error(found_problem["status"])
        yield _event({"error": found_problem["error"]})
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _json(data) + b"\n\n"


def _json(data: dict[str, Any]) -> bytes:
    return to_json(data, inf_nan_mode="null")  # JSON has no notation for them


async def _counted(
    first: tuple[int, Token | Generation],
    rest: AsyncIterator[tuple[int, Token | Generation]],
    metrics: Metrics,
    began: float,
) -> AsyncIterator[tuple[int, Token | Generation]]:
    yield first
    async for at, item in rest:
        if isinstance(item, Generation):
            metrics.generated(item, began)
        yield at, item
