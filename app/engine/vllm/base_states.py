"""The base model's states that enter the site's layer, from vLLM: a row of tokens runs as a request of one new token.

Few rows run at a time, so that a large fit does not fill vLLM's queue ahead of its clients.
"""

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import EngineAway
from app.engine.fitter.fitter import Answer, Rows
from app.engine.fitter.messages import FitFailed
from app.engine.vllm.inside.errata_vllm.rows import STATES
from app.engine.vllm.session import VllmSession

ROWS_AT_ONCE = 4
"""The most rows that run in vLLM at a time."""


@dataclass(eq=False, slots=True)
class _Question:
    """One question for the states of several rows."""

    answer: Answer
    missing: int
    states: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Row:
    question: _Question
    index: int
    ids: Sequence[int]


class BaseStatesReader:
    """Rows that wait for vLLM and rows that run there. Only the engine's thread calls it."""

    def __init__(self) -> None:
        self._waiting: deque[_Row] = deque()
        self._running: dict[int, _Row] = {}

    def ask(self, rows: Rows, answer: Answer) -> None:
        """Have the states of rows of token ids found; `answer` receives them, or an error."""
        if not rows:
            answer([])
            return
        question = _Question(answer, len(rows))
        self._waiting.extend(_Row(question, index, ids) for index, ids in enumerate(rows))

    def send(self, session: VllmSession, new_number: Callable[[], int]) -> None:
        """Send as many rows as may run."""
        while self._waiting and len(self._running) < ROWS_AT_ONCE:
            row, number = self._waiting.popleft(), new_number()
            self._running[number] = row
            # what the prefix cache knows would not be computed: a salt of its own keeps the row apart
            salt = f"states/{secrets.token_hex(8)}"
            parameters = {"max_tokens": 1, "temperature": 0.0, "logprobs": 0, "extra_args": {STATES: str(number)}}
            session.add(number, list(row.ids), parameters, salt, None)

    def take(self, number: int, kind: str, *more: Any) -> bool:
        """Take an item of vLLM's. Returns False if it belongs to a request of another kind."""
        if (row := self._running.get(number)) is None:
            return False
        if kind == "states":
            dtype, value = more
            states = torch.frombuffer(bytearray(value), dtype=getattr(torch, dtype)).reshape(len(row.ids), -1)
            row.question.states[row.index] = states
            row.question.missing -= 1
            del self._running[number]
            if not row.question.missing:
                row.question.answer([states for _, states in sorted(row.question.states.items())])
        elif kind not in ("tokens", "ended"):
            self._fail(row.question, FitFailed(f"vLLM cannot tell the states that a fit needs: {more[0]}."))
        return True

    def lose(self, why: str) -> None:
        """Answer all questions with an error, as vLLM is gone."""
        while rows := [*self._running.values(), *self._waiting]:
            self._fail(
                rows[0].question, EngineAway(f"vLLM was lost before this fit was done ({why}): make the edit again.")
            )

    def _fail(self, question: _Question, error: Any) -> None:
        self._waiting = deque(row for row in self._waiting if row.question is not question)
        self._running = {number: row for number, row in self._running.items() if row.question is not question}
        question.answer(error)
