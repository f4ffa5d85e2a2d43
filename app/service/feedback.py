"""Answers that their readers reported as wrong, as starting points for corrections.

They are kept only if the operator enables it, in memory, with a limit on number and age, and are deleted on request.
Does not import torch.
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

CURRENT_REQUEST: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The id of the request that is being answered, set by the code that accepts requests."""
CURRENT_KEY: ContextVar[str | None] = ContextVar("current_key", default=None)
"""The id of the key of the request that is being answered, set by the code that checks keys."""
MOST_ANSWERS = 10_000
MOST_CHARS_IN_ALL = 20_000_000
"""The maximum length of all remembered prompts and answers together, in characters."""
MOST_CHARS = 20_000
"""The maximum length of a prompt and its answer together, in characters. Longer ones cannot be reported, because they
would fill the memory."""
ANSWERS_S = 3600.0
DAY_S = 86_400.0
LIKE = 0.7
"""The cosine from which on two questions are shown together. It affects nothing but the order of a list."""
_PREFIXES = ("chatcmpl-", "cmpl-")
"""The prefixes that OpenAI's routes add to the request's id in their answers."""


class Similarity(Protocol):
    """The similarity of questions. Both methods may take milliseconds and may be called on any thread."""

    def vector(self, prompt: str) -> Any: ...

    def nearest(self, vector: Any, others: Sequence[Any]) -> tuple[int, float]:
        """The index of the nearest of the others, of which there is at least one, and its cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """An answer that was given recently. `index` is its position among the answers to its request, and `key_id` the
    key that asked, if the server requires keys."""

    request_id: str
    index: int
    key_id: str | None
    namespace: str
    prompt: str
    said: str
    edit_ids: tuple[str, ...]
    revision: int
    at_s: float

    @property
    def place(self) -> tuple[str, int, str | None, str]:
        return self.request_id, self.index, self.key_id, self.namespace

    @property
    def chars(self) -> int:
        return len(self.prompt) + len(self.said)


@dataclass(slots=True)
class RememberedAnswers:
    """The answers that may still be reported, the oldest first. Applications choose the ids of their requests, and two
    may choose the same: its key and namespace also identify an answer."""

    _kept: OrderedDict[tuple[str, int, str | None, str], GivenAnswer] = field(default_factory=OrderedDict)
    _chars: int = 0

    def add(self, answer: GivenAnswer) -> None:
        """Remember an answer, in place of an earlier one of the same request."""
        self._drop(answer.place)
        self._kept[answer.place] = answer
        self._chars += answer.chars

    def drop(self, answer: GivenAnswer) -> None:
        if self.holds(answer):
            self._drop(answer.place)

    def holds(self, answer: GivenAnswer) -> bool:
        return self._kept.get(answer.place) is answer

    def under(self, request_id: str, index: int) -> list[GivenAnswer]:
        """The answers with an id, over all keys and namespaces."""
        return [each for each in self._kept.values() if (each.request_id, each.index) == (request_id, index)]

    def bound(self, before_s: float) -> None:
        """Forget the answers given before a time, and the oldest of those that exceed the limits."""
        while self._kept:
            place, oldest = next(iter(self._kept.items()))
            full = len(self._kept) > MOST_ANSWERS or self._chars > MOST_CHARS_IN_ALL
            if not full and oldest.at_s >= before_s:
                break
            self._drop(place)

    def clear(self) -> None:
        self._kept.clear()
        self._chars = 0

    def _drop(self, place: tuple[str, int, str | None, str]) -> None:
        if (gone := self._kept.pop(place, None)) is not None:
            self._chars -= gone.chars


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedAnswer:
    """An answer that was reported as wrong. Reports whose questions are alike share a `group`."""

    id: str
    answer: GivenAnswer
    note: str | None
    actor: str
    key_id: str | None
    at_s: float
    group: int


@dataclass(slots=True)
class Feedback:
    """The reported answers of this server: at most `most` of them (0 keeps none), each for `days` days."""

    most: int
    likeness: Similarity
    clock: Callable[[], float]
    days: float = 30.0
    _answers: RememberedAnswers = field(default_factory=RememberedAnswers)
    _reported: OrderedDict[str, ReportedAnswer] = field(default_factory=OrderedDict)
    _groups: dict[int, Any] = field(default_factory=dict)
    """Maps a group to the vector of its first question."""
    _next: int = 0

    def remember(self, prompt: str, at: int, parameters: GenerationParameters, generation: Generation) -> None:
        """Keep an answer for ANSWERS_S so that it can be reported, if it was given to a reader under a request's id."""
        request_id = CURRENT_REQUEST.get()
        shown = parameters.edits == "live" and parameters.counted and not parameters.forced
        if not self.most or request_id is None or not shown:
            return
        if len(prompt) + len(generation.said) > MOST_CHARS:
            return
        answer = GivenAnswer(
            request_id=request_id,
            index=at,
            key_id=CURRENT_KEY.get(),
            namespace=parameters.namespace,
            prompt=prompt,
            said=generation.said,
            edit_ids=tuple(hit.edit_id for hit in generation.reached),
            revision=generation.revision,
            at_s=self.clock(),
        )
        self._answers.add(answer)
        self._forget_old()

    async def report(
        self, request_id: str, index: int, note: str | None, origin: Origin, namespace: str | None = None
    ) -> ReportedAnswer:
        """Report an answer as wrong. An answer that is reported again keeps its id and takes the new note. Raises
        InvalidRequest if reports are not kept, and UnknownAnswer."""
        answer = self.answer(request_id, index, origin.key_id, namespace)
        vector = await asyncio.to_thread(self.likeness.vector, answer.prompt)
        if not self._answers.holds(answer):  # deleted meanwhile, and what was deleted must not come back
            raise _unknown(request_id, index)
        known = next((each for each in self._reported.values() if each.answer == answer), None)
        if known is not None:
            again = replace(known, note=note, actor=origin.actor, key_id=origin.key_id, at_s=self.clock())
            self._reported[known.id] = again
            self._reported.move_to_end(known.id)  # in the order of age: the oldest report is dropped first
            return again
        reported = ReportedAnswer(
            id=f"fb_{uuid.uuid4().hex[:16]}",
            answer=answer,
            note=note,
            actor=origin.actor,
            key_id=origin.key_id,
            at_s=self.clock(),
            group=self._group_of(vector),
        )
        self._reported[reported.id] = reported
        if len(self._reported) > self.most:
            self._drop([next(iter(self._reported))])
        return reported

    def answer(self, request_id: str, index: int, key_id: str | None, namespace: str | None = None) -> GivenAnswer:
        """The remembered answer to a request, which a key asked to report. Where several requests have the id, the one
        of the key itself is meant. Raises InvalidRequest if reports are not kept, and UnknownAnswer for an answer that
        is unknown, no longer remembered, or not the only one."""
        if not self.most:
            raise InvalidRequest("Reported answers are not kept here: set ERRATA_FEEDBACK to how many of them may be.")
        self._forget_old()
        bare = next((request_id[len(each) :] for each in _PREFIXES if request_id.startswith(each)), request_id)
        answers = self._answers.under(bare, index) or self._answers.under(request_id, index)
        answers = [each for each in answers if namespace is None or each.namespace == namespace]
        answers = [each for each in answers if each.key_id == key_id] or answers
        if not answers:
            raise _unknown(request_id, index)
        if len(answers) > 1:
            raise UnknownAnswer(
                f"{len(answers)} requests of the last {ANSWERS_S / 60:.0f} minutes have the id {request_id!r}: report "
                "the answer with the key that asked for it, and name its `namespace`.",
                request_id=request_id,
            )
        return answers[0]

    def groups(self, namespace: str | None = None) -> list[list[ReportedAnswer]]:
        """The reports of a namespace, or of all, by group: the largest group first, the newest report first within
        each."""
        self._forget_old()
        groups: dict[int, list[ReportedAnswer]] = {}
        for each in reversed(self._reported.values()):
            if namespace is None or each.answer.namespace == namespace:
                groups.setdefault(each.group, []).append(each)
        return sorted(groups.values(), key=lambda group: (-len(group), -group[0].at_s))

    def count(self) -> int:
        self._forget_old()
        return len(self._reported)

    def forget(self, report_id: str) -> None:
        """Delete one report with its answer, which cannot be reported again. Raises UnknownReport."""
        if report_id not in self._reported:
            raise UnknownReport(f"No reported answer here has the id {report_id!r}: GET /feedback lists them.")
        self._answers.drop(self._reported[report_id].answer)
        self._drop([report_id])

    def forget_all(self) -> int:
        """Delete all reports and all answers that could still be reported; returns the number of reports deleted."""
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
        self._answers.bound(now_s - ANSWERS_S)
        while self._reported and (oldest := next(iter(self._reported.values()))).at_s + self.days * DAY_S < now_s:
            self._drop([oldest.id])

    def _drop(self, report_ids: Sequence[str]) -> None:
        for report_id in report_ids:
            del self._reported[report_id]
        if report_ids:
            used = {each.group for each in self._reported.values()}
            self._groups = {group: vector for group, vector in self._groups.items() if group in used}


def _unknown(request_id: str, index: int) -> UnknownAnswer:
    return UnknownAnswer(
        f"No answer {index} to the request {request_id!r} is known here: send the X-Request-Id of an answer of the "
        f"last {ANSWERS_S / 60:.0f} minutes, to the server that gave it. What was deleted cannot be reported again.",
        request_id=request_id,
    )
