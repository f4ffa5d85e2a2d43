"""The path of a generation: prompts are prepared, queued under an edition, and come back as a stream of tokens."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TypeVar

from app.domain.errors import ErrataError
from app.domain.generation import Generation, GenerationParameters, Token
from app.engine.client import EngineClient
from app.engine.cores import AT_START
from app.engine.editions import Edition, ScopeDecision
from app.engine.sequence import PreparedRequest

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
_PREPARING = ThreadPoolExecutor(max(2, len(AT_START)), thread_name_prefix="prepare")
"""The threads on which prompts are prepared. More of them than cores would not be done sooner, and each takes the
interpreter's lock from the thread that streams answers."""


async def items_of(
    engine: EngineClient,
    requests: Sequence[tuple[str, GenerationParameters]],
    edition: Edition,
    revision: int,
    began: float | None = None,
    prepared: Sequence[PreparedRequest] | None = None,
    unwanted: Collection[int] = (),
) -> AsyncGenerator[tuple[int, Token | Generation], None]:
    """Runs requests side by side and yields (index, token) as tokens come, and each request's Generation last.

    `prepared` is what `prepare` returns for the prompts, if that was done before. Timeouts run from `began`, on the
    clock of `time.monotonic`; None: from now. The error of one request ends all. Leaving early cancels the requests
    that have not ended and frees their slots; so does adding the index of one to `unwanted` before the next item is
    taken.
    """
    loop = asyncio.get_running_loop()
    began = time.monotonic() if began is None else began
    shared = requests[0][1] if requests else GenerationParameters()  # all of them belong to one request
    if prepared is None:
        pinned = [(prompt, edition) for prompt, _ in requests]
        prepared = await _in_time(prepare(engine, pinned, shared.json_schema, nearest=shared.explain), shared, began)
    arrived: asyncio.Queue[tuple[int, Token | Generation | ErrataError]] = asyncio.Queue()

    emits = [engine.emitting_to(loop, arrived, at) for at in range(len(requests))]
    queued = engine.generate(requests, edition, revision, emits, prepared, began)
    try:
        sequences = await asyncio.wrap_future(queued)
    except asyncio.CancelledError:
        # the engine may have accepted them already: they are cancelled too
        queued.add_done_callback(lambda f: None if f.cancelled() or f.exception() else engine.cancel(f.result()))
        raise
    going = dict(enumerate(sequences))
    try:
        while going:
            at, item = await arrived.get()
            if at not in going:  # it is cancelled, as nobody wants it any more
                continue
            if not isinstance(item, Token):
                del going[at]
            if isinstance(item, ErrataError):
                raise item
            yield at, item
            if leaving := [going.pop(each) for each in unwanted if each in going]:
                engine.cancel(leaving)
    finally:
        if going:
            engine.cancel(going.values())


async def scope_decisions_of(engine: EngineClient, prompts: Sequence[str], edition: Edition) -> list[ScopeDecision]:
    """The decision of the scope index for each prompt, and of the judge if the index is uncertain. Runs beside the
    engine, while others are served. Raises InvalidRequest."""
    if not edition.edit_ids:
        return [ScopeDecision()] * len(prompts)
    decisions = await _of_each(prompts, lambda prompt: engine.ask(prompt, edition))
    return list(await asyncio.gather(*(_settled(engine, scope_decision) for scope_decision in decisions)))


async def _settled(engine: EngineClient, scope_decision: ScopeDecision) -> ScopeDecision:
    """The decision after the judge, if the index is uncertain and there is a judge."""
    return (
        await engine.judge.settle(scope_decision)
        if engine.judge is not None and scope_decision.uncertain
        else scope_decision
    )


async def prepare(
    engine: EngineClient,
    pinned: Sequence[tuple[str, Edition]],
    schema: str | None = None,
    *,
    nearest: bool = True,
) -> list[PreparedRequest]:
    """Prepare prompts, each with its edition, for the engine: on one worker thread, then by the judge where the index
    is uncertain. Without `nearest` the nearest edit need not be named. Raises InvalidRequest."""
    prepared = await _of_each(pinned, lambda each: engine.prepare(*each, schema, nearest=nearest))
    settled = await asyncio.gather(*(_settled(engine, each.scope_decision) for each in prepared))
    text = engine.text
    return [
        each
        if scope_decision is each.scope_decision
        else replace(
            each,
            scope_decision=scope_decision,
            fed=text.encode(prompt[: -scope_decision.cut]) if scope_decision.cut else each.ids,
        )
        for (prompt, _), each, scope_decision in zip(pinned, prepared, settled, strict=True)
    ]


async def _in_time(preparing: Awaitable[T], parameters: GenerationParameters, began: float) -> T:
    """The result, if it is there before the timeout of the request runs out. Raises DeadlineExceeded."""
    due = parameters.due(began)
    try:
        async with asyncio.timeout(None if due is None else due - time.monotonic()):
            return await preparing
    except TimeoutError:
        raise parameters.too_late(0) from None


async def _of_each(arguments: Sequence[K], function: Callable[[K], T]) -> list[T]:
    """The result of a function for each argument, computed on a separate thread and once for equal ones."""
    distinct = list(dict.fromkeys(arguments))
    run = partial(copy_context().run, lambda: [function(each) for each in distinct])
    results = await asyncio.get_running_loop().run_in_executor(_PREPARING, run)
    by_argument = dict(zip(distinct, results, strict=True))
    return [by_argument[each] for each in arguments]


async def generation_of(
    engine: EngineClient, prompt: str, parameters: GenerationParameters, edition: Edition, revision: int
) -> Generation:
    """The finished answer."""
    async with aclosing(items_of(engine, [(prompt, parameters)], edition, revision)) as items:
        async for _, item in items:
            if isinstance(item, Generation):
                return item
    raise AssertionError("a sequence ended without its terminal event")
