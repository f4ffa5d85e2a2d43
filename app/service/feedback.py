"""Answers that their readers report as wrong: people correct from them.

They are kept only where the operator turns it on, in memory, bounded in number and age, and deleted at a word. Free of
torch.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from app.domain.errors import InvalidRequest, UnknownAnswer, UnknownReport
from app.domain.events import Origin
from app.domain.generation import Generation, GenerationParameters

ASKED_UNDER: ContextVar[str | None] = ContextVar("asked_under", default=None)
"""The id of the request that is being answered: whoever takes requests sets it."""
MOST_ANSWERS = 10_000
MOST_CHARS = 20_000
"""Of a prompt and its answer together: longer ones cannot be reported, or they would fill the memory."""
ANSWERS_S = 3600.0
DAY_S = 86_400.0
LIKE = 0.7
"""Cosine from which on two questions are shown together. It decides about nothing but the order of a list."""
_PREFIXES = ("chatcmpl-", "cmpl-")
"""What the answers of OpenAI's routes put before the request's id."""


class Likeness(Protocol):
    """How alike questions are. Both may take milliseconds, on any thread."""

    def vector(self, prompt: str) -> Any: ...

    def nearest(self, vector: Any, others: Sequence[Any]) -> tuple[int, float]:
        """Which of the others, of which there is one at least, lies nearest, and its cosine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One that was given lately. `index` is its place among the answers to its request."""

    request_id: str
    index: int
    namespace: str
    prompt: str
    said: str
    edit_ids: tuple[str, ...]
    revision: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """An answer that was reported as wrong; `group` is shared by those whose questions are alike."""

    id: str
    answer: Answer
    note: str | None
    actor: str
    key_id: str | None
    at_s: float
    group: int


@dataclass(slots=True)
class Feedback:
    """`most` reported answers are kept, none where it is 0, for `days`; only this server's."""

    most: int
    likeness: Likeness
    clock: Callable[[], float]
    days: float = 30.0
    _answers: OrderedDict[tuple[str, int], Answer] = field(default_factory=OrderedDict)
    _reported: OrderedDict[str, Reported] = field(default_factory=OrderedDict)
    _groups: dict[int, Any] = field(default_factory=dict)
    """Group -> the vector of the first that came into it."""
    _next: int = 0

    def remember(self, prompt: str, at: int, parameters: GenerationParameters, generation: Generation) -> None:
        """An answer that may be reported for a while: one that a reader was given, under a request's id."""
        request_id = ASKED_UNDER.get()
        shown = parameters.edits == "live" and parameters.counted and not parameters.forced
        if not self.most or request_id is None or not shown:
            return
        if len(prompt) + len(generation.said) > MOST_CHARS:
            return
        self._answers[request_id, at] = Answer(
            request_id=request_id,
            index=at,
            namespace=parameters.namespace,
            prompt=prompt,
            said=generation.said,
            edit_ids=tuple(hit.edit_id for hit in generation.reached),
            revision=generation.revision,
            at_s=self.clock(),
        )
        self._answers.move_to_end((request_id, at))
        self._forget_old()

    async def report(self, request_id: str, index: int, note: str | None, origin: Origin) -> Reported:
        """Reported again, an answer keeps its place and takes the new note. Raises InvalidRequest where none are kept,
        UnknownAnswer."""
        answer = self.answer(request_id, index)
        vector = await asyncio.to_thread(self.likeness.vector, answer.prompt)
        known = next((each for each in self._reported.values() if each.answer == answer), None)
        if known is not None:
            again = replace(known, note=note, actor=origin.actor, key_id=origin.key_id, at_s=self.clock())
            self._reported[known.id] = again
            self._reported.move_to_end(known.id)  # in their age: what is forgotten stands first
            return again
        found = Reported(
            id=f"fb_{uuid.uuid4().hex[:16]}",
            answer=answer,
            note=note,
            actor=origin.actor,
            key_id=origin.key_id,
            at_s=self.clock(),
            group=self._group_of(vector),
        )
        self._reported[found.id] = found
        if len(self._reported) > self.most:
            self._drop([next(iter(self._reported))])
        return found

    def answer(self, request_id: str, index: int) -> Answer:
        """Raises InvalidRequest where none are kept, UnknownAnswer for one that is not, or no longer, known."""
        if not self.most:
            raise InvalidRequest("Reported answers are not kept here: set ERRATA_FEEDBACK to how many of them may be.")
        self._forget_old()
        bare = next((request_id[len(each) :] for each in _PREFIXES if request_id.startswith(each)), request_id)
        found = self._answers.get((bare, index)) or self._answers.get((request_id, index))
        if found is None:
            raise UnknownAnswer(
                f"No answer {index} to the request {request_id!r} is known here: send the X-Request-Id of an answer of "
                f"the last {ANSWERS_S / 60:.0f} minutes, to the server that gave it.",
                request_id=request_id,
            )
        return found

    def groups(self, namespace: str | None = None) -> list[list[Reported]]:
        """Of a namespace, or of all: the largest group first, in each the newest first."""
        self._forget_old()
        found: dict[int, list[Reported]] = {}
        for each in reversed(self._reported.values()):
            if namespace is None or each.answer.namespace == namespace:
                found.setdefault(each.group, []).append(each)
        return sorted(found.values(), key=lambda group: (-len(group), -group[0].at_s))

    def count(self) -> int:
        self._forget_old()
        return len(self._reported)

    def forget(self, report_id: str) -> None:
        """Delete one. Raises UnknownReport."""
        if report_id not in self._reported:
            raise UnknownReport(f"No reported answer here has the id {report_id!r}: GET /feedback lists them.")
        self._drop([report_id])

    def forget_all(self) -> int:
        """Delete them, and the answers that might have been reported. -> how many were reported."""
        gone = len(self._reported)
        self._answers.clear()
        self._drop(list(self._reported))
        return gone

    def _group_of(self, vector: Any) -> int:
        if self._groups:
            place, cosine = self.likeness.nearest(vector, list(self._groups.values()))
            if cosine >= LIKE:
                return list(self._groups)[place]
        self._next += 1
        self._groups[self._next] = vector
        return self._next

    def _forget_old(self) -> None:
        now_s = self.clock()
        while self._answers and (
            len(self._answers) > MOST_ANSWERS or next(iter(self._answers.values())).at_s + ANSWERS_S < now_s
        ):
            self._answers.popitem(last=False)
        while self._reported and (oldest := next(iter(self._reported.values()))).at_s + self.days * DAY_S < now_s:
            self._drop([oldest.id])

    def _drop(self, report_ids: Sequence[str]) -> None:
        for report_id in report_ids:
            del self._reported[report_id]
        if report_ids:
            used = {each.group for each in self._reported.values()}
            self._groups = {group: vector for group, vector in self._groups.items() if group in used}
