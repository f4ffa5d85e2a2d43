"""Generation for the service: the edition to which a request is pinned, and its tokens as an async stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar
from weakref import WeakSet

from app.domain.errors import ErrataError, InvalidRequest, RevisionAhead, RevisionGone
from app.domain.generation import Generation, GenerationParameters, Token
from app.engine.client import EngineClient
from app.engine.editions import Edition, ScopeDecision
from app.engine.sequence import PreparedRequest
from app.service.records import Records

T = TypeVar("T")
MIN_REVISION_TIMEOUT_S = 5.0


class Pins:
    """Editions by namespace and revision. One object for each set of live edits, so that it is compiled once."""

    def __init__(self, records: Records, history_revisions: int) -> None:
        self._records = records
        self._history_revisions = history_revisions
        self._cached: dict[str, Edition] = {}
        self._off: dict[str, Edition] = {}
        self._made: WeakSet[Edition] = WeakSet()

    def forget(self) -> None:
        """Drop everything, for a log whose history was replaced: its revisions have lost their meaning."""
        self._cached.clear()
        self._off.clear()

    def in_use(self, edit_ids: Collection[str]) -> set[str]:
        """The edits, by the ids of their fits, that a request or trial under way may still see."""
        last_change = self._records.ledger.last_change
        for kept in (self._cached, self._off):
            for name in [name for name, each in kept.items() if each.revision != last_change(name)]:
                del kept[name]
        return {edit_id for edition in self._made for edit_id in set(edition.edit_ids).intersection(edit_ids)}

    def _edition(self, namespace: str, revision: int, fit_ids: Iterable[str]) -> Edition:
        edition = Edition(namespace, revision, tuple(fit_ids))
        self._made.add(edition)
        return edition

    @property
    def oldest(self) -> int:
        """The oldest revision that a request may ask for."""
        return max(0, self._records.revision - self._history_revisions)

    def current(self, namespace: str) -> Edition:
        ledger = self._records.ledger
        change = ledger.last_change(namespace)
        cached = self._cached.get(namespace)
        if cached is None or cached.revision != change:
            cached = self._edition(namespace, change, ledger.live_fits(namespace))
            if cached.edit_ids or namespace in self._cached:
                self._cached[namespace] = cached  # invented names of empty namespaces are not kept
        return cached

    def live_edition(self, namespace: str) -> Edition:
        """The live edits regardless of the kill switches, since a new edit must be compatible with them."""
        current = self.current(namespace)
        if current.edit_ids or self._records.ledger.switched_on(namespace):
            return current
        off = self._off.get(namespace)
        if off is None or off.revision != current.revision:
            off = self._edition(namespace, current.revision, self._records.ledger.unswitched_fits(namespace))
            self._off[namespace] = off
        return off

    async def pin(self, parameters: GenerationParameters) -> tuple[Edition, int]:
        """The edition that a request sees, and the revision that its answer names. Raises RevisionGone, RevisionAhead,
        UnknownEdit."""
        wanted, least = parameters.revision, parameters.min_revision
        if wanted is not None and least is not None and wanted < least:
            raise InvalidRequest("`revision` is older than `min_revision`: leave one of them out.")
        patience_s = min(MIN_REVISION_TIMEOUT_S, parameters.timeout_s or MIN_REVISION_TIMEOUT_S)
        if least is not None and not await self._records.wait_for(least, patience_s):
            raise RevisionAhead(
                f"Revision {least} was not applied here within {patience_s:g} s; "
                f"this server is at {self._records.revision}. See /help/operation#several-servers.",
                revision=self._records.revision,
                retry_after_s=1,
            )
        ledger = self._records.ledger
        if wanted is not None and wanted > ledger.revision:
            raise InvalidRequest(f"`revision` {wanted} does not exist yet: the newest is {ledger.revision}.")
        if wanted is not None and wanted < self.oldest:
            raise RevisionGone(
                f"Revision {wanted} is no longer kept: the oldest is {self.oldest}. See /help/api#asking.",
                oldest=self.oldest,
            )
        revision = ledger.revision if wanted is None else wanted
        namespace = parameters.namespace
        if parameters.edits == "off":
            return Edition(namespace, revision, ()), revision
        if wanted is None or wanted >= ledger.last_change(namespace):
            edition = self.current(namespace)
        else:
            edition = self._edition(namespace, wanted, ledger.live_fits(namespace, wanted))
        if parameters.exclude:
            for edit_id in parameters.exclude:
                ledger.entry(edit_id)
            edition = edition.without(frozenset(parameters.exclude))
        return edition, revision


async def items_of(
    engine: EngineClient,
    asked: Sequence[tuple[str, GenerationParameters]],
    edition: Edition,
    revision: int,
    began: float | None = None,
) -> AsyncIterator[tuple[int, Token | Generation]]:
    """Runs requests side by side and yields (index, token) as tokens come, and each request's Generation last.

    Their timeouts run from `began`, on the clock of `time.monotonic`; None: from now. The error of one ends all.
    Leaving early cancels the requests that have not ended and frees their slots.
    """
    loop = asyncio.get_running_loop()
    began = time.monotonic() if began is None else began
    shared = asked[0][1] if asked else GenerationParameters()  # all of them belong to one request
    ready = await _in_time(_ready(engine, [prompt for prompt, _ in asked], edition, shared.json_schema), shared, began)
    arrived: asyncio.Queue[tuple[int, Token | Generation | ErrataError]] = asyncio.Queue()

    emits = [engine.emitting_to(loop, arrived, at) for at in range(len(asked))]
    queued = engine.generate(asked, edition, revision, emits, ready, began)
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
            if not isinstance(item, Token):
                del going[at]
            if isinstance(item, ErrataError):
                raise item
            yield at, item
    finally:
        if going:
            engine.cancel(going.values())


async def scope_decisions_of(engine: EngineClient, prompts: Sequence[str], edition: Edition) -> list[ScopeDecision]:
    """The decision of the scope index for each prompt, and of the judge if the index is uncertain. Runs beside the
    engine, while others are served. Raises InvalidRequest."""
    if not edition.edit_ids:
        return [ScopeDecision()] * len(prompts)
    found = await _of_each(prompts, lambda prompt: engine.ask(prompt, edition))
    return list(await asyncio.gather(*(_settled(engine, scope_decision) for scope_decision in found)))


async def _settled(engine: EngineClient, scope_decision: ScopeDecision) -> ScopeDecision:
    """The decision after the judge, if the index is uncertain and there is a judge."""
    return (
        await engine.judge.settle(scope_decision)
        if engine.judge is not None and scope_decision.uncertain
        else scope_decision
    )


async def _ready(
    engine: EngineClient, prompts: Sequence[str], edition: Edition, schema: str | None
) -> list[PreparedRequest]:
    """Prepare the prompts for the engine. Raises InvalidRequest."""
    found = await _of_each(prompts, lambda prompt: engine.ready(prompt, edition, schema))
    settled = await asyncio.gather(*(_settled(engine, each.scope_decision) for each in found))
    text = engine.text
    return [
        each
        if scope_decision is each.scope_decision
        else replace(
            each,
            scope_decision=scope_decision,
            fed=text.encode(prompt[: -scope_decision.cut]) if scope_decision.cut else each.ids,
        )
        for prompt, each, scope_decision in zip(prompts, found, settled, strict=True)
    ]


async def _in_time(preparing: Awaitable[T], parameters: GenerationParameters, began: float) -> T:
    """The result, if it is there before the timeout of the request runs out. Raises DeadlineExceeded."""
    due = parameters.due(began)
    try:
        async with asyncio.timeout(None if due is None else due - time.monotonic()):
            return await preparing
    except TimeoutError:
        raise parameters.too_late(0) from None


async def _of_each(prompts: Sequence[str], made: Callable[[str], T]) -> list[T]:
    """The result of a function for each prompt, computed on a separate thread and once for equal prompts."""
    distinct = list(dict.fromkeys(prompts))
    found = await asyncio.to_thread(lambda: [made(prompt) for prompt in distinct])
    by_prompt = dict(zip(distinct, found, strict=True))
    return [by_prompt[prompt] for prompt in prompts]


async def generation_of(
    engine: EngineClient, prompt: str, parameters: GenerationParameters, edition: Edition, revision: int
) -> Generation:
    """The finished answer."""
    async with aclosing(items_of(engine, [(prompt, parameters)], edition, revision)) as items:  # type: ignore[type-var]
        async for _, item in items:
            if isinstance(item, Generation):
                return item
    raise AssertionError("a sequence ended without its terminal event")
