"""A question as asked from a page, and its two answers: with the edits, and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest, UnknownEdit
from app.domain.generation import Generation, GenerationParameters, Hit, Token
from app.domain.keys import Right
from app.ui import words
from app.ui.visit import Visit

MOST_QUESTION_CHARS = 4_000
"""The maximum length of a question in an address, in characters; longer ones are for the API."""
MOST_TOKENS = 200


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question in a namespace. `how` is `chat`, through the model's template, or `text`, as it is."""

    text: str
    how: str
    namespace: str

    @classmethod
    def of(cls, visit: Visit, given: Mapping[str, str]) -> "AskedQuestion":
        """The question in a form or query. Raises InvalidRequest."""
        text, namespace = given.get("q", "").strip(), given.get("namespace", "") or visit.home
        chats = visit.service.answers.chats
        how = given.get("how", "") or ("chat" if chats else "text")
        if how not in ("chat", "text"):
            raise InvalidRequest("A question is asked as a chat or as bare text: choose one of both.")
        if not NAMESPACE.fullmatch(namespace):
            raise InvalidRequest(f"The namespace is not a name: use {NAMESPACE_RULE}.")
        visit.check_reach(namespace)
        if len(text) > MOST_QUESTION_CHARS:
            raise InvalidRequest(f"The question is too long for this page: at most {MOST_QUESTION_CHARS} characters.")
        return cls(text, how, namespace)

    @property
    def query(self) -> dict[str, str]:
        return {"q": self.text, "how": self.how, "namespace": self.namespace}

    def prompt(self, visit: Visit, text: str | None = None) -> str:
        """The prompt of this question, or of another text asked in the same way. Raises InvalidRequest."""
        content = self.text if text is None else text
        if self.how == "text":
            return content
        return visit.service.answers.render([{"role": "user", "content": content}])


@dataclass(frozen=True, slots=True)
class EditChip:
    """The edit that answered, or the one that came nearest, with the reason in a sentence."""

    id: str
    question: str
    target: str
    answered: bool
    why: str


def chips_of(visit: Visit, generation: Generation) -> list[EditChip]:
    chips = [_chip(visit, hit, answered=True) for hit in generation.hits]
    chips += [_chip(visit, hit, answered=False, left=True) for hit in generation.not_given]
    if not chips and generation.nearest is not None:
        chips = [_chip(visit, generation.nearest, answered=False)]
    return [chip for chip in chips if chip is not None]


def _chip(visit: Visit, hit: Hit, *, answered: bool, left: bool = False) -> EditChip | None:
    try:
        request = visit.service.edit_view(hit.edit_id).edit.request
    except UnknownEdit:  # an edit that is gone from this server's memory cannot be shown
        return None
    why = words.why_hit(hit.signals, request.subject) if answered or left else words.why_not(hit)
    if left:
        why += " But the model said something else than the edit’s answer."
    return EditChip(hit.edit_id, visit.service.answers.question(request.prompt), request.target, answered, why)


async def answers(visit: Visit, question: AskedQuestion) -> dict[str, Any]:
    """Both answers, complete, as `shown` describes them."""
    live, base = await asyncio.gather(_answer(visit, question, "live"), _answer(visit, question, "off"))
    return shown(visit, live, base)


def shown(visit: Visit, live: Generation, base: Generation) -> dict[str, Any]:
    return {"live": live, "base": base, "chips": chips_of(visit, live), "same": live.said == base.said}


async def _answer(visit: Visit, question: AskedQuestion, edits: Any) -> Generation:
    generation: Generation | None = None
    async for item in _items(visit, question, edits):
        if isinstance(item, Generation):
            generation = item
    assert generation is not None
    return generation


async def _items(visit: Visit, question: AskedQuestion, edits: Any) -> AsyncIterator[Token | Generation]:
    began = time.perf_counter()
    prompt = question.prompt(visit)
    most = min(MOST_TOKENS, visit.service.answers.room(prompt))
    parameters = GenerationParameters(
        max_new_tokens=most, edits=edits, namespace=question.namespace, explain=edits == "live"
    )
    async with aclosing(visit.service.stream([prompt], parameters)) as stream:
        async for _, item in stream:
            if isinstance(item, Generation):
                visit.desk.metrics.generated(item, began)
            yield item


async def streamed(visit: Visit, question: AskedQuestion) -> AsyncIterator[tuple[str, Any]]:
    """Yields the tokens of both answers as they come, as (live or base, text), and last (done, the value of
    `answers`)."""
    arrived: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def read(pane: str, edits: str) -> None:
        async for item in _items(visit, question, edits):
            await arrived.put((pane, item))

    tasks = [asyncio.create_task(read(pane, edits)) for pane, edits in (("live", "live"), ("base", "off"))]
    for task in tasks:
        task.add_done_callback(lambda done: arrived.put_nowait(("ended", done)))
    ended: dict[str, Generation] = {}
    try:
        going = len(tasks)
        while going:
            pane, item = await arrived.get()
            if pane == "ended":
                item.result()  # raises the task's error
                going -= 1
            elif isinstance(item, Generation):
                ended[pane] = item
            elif item.text:
                yield pane, item.text
        yield "done", shown(visit, ended["live"], ended["base"])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def may_ask(visit: Visit) -> bool:
    return visit.can(Right.GENERATE)


def how_of(visit: Visit, prompt: str, question: str) -> str:
    """The way in which a question with this prompt is asked: `chat`, through the template, or `text`, as it is."""
    return "text" if question == prompt or not visit.service.answers.chats else "chat"
