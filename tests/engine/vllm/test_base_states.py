"""The states that a fit needs, from vLLM: which rows run, and what becomes of the answers."""

from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from app.domain.errors import EngineAway, ErrataError
from app.engine.fitter.messages import FitFailed
from app.engine.vllm.base_states import ROWS_AT_ONCE, BaseStatesReader

ROWS = [[1, 2, 3], [4, 5], [6], [7, 8], [9], [10]]


class Desk:
    """The reader with a session that records what it is sent."""

    def __init__(self) -> None:
        self.reader, self.sent, self.answers = BaseStatesReader(), list[Any](), list[Any]()
        self._numbers = count(1)

    def add(self, *message: Any) -> None:
        self.sent.append(message)

    def ask(self, rows: list[list[int]]) -> None:
        self.reader.ask(rows, self.answers.append)
        self.send()

    def send(self) -> None:
        session: Any = self
        self.reader.send(session, lambda: next(self._numbers))

    def tell(self, number: int, ids: list[int]) -> None:
        states = torch.tensor(ids, dtype=torch.float32)[:, None].expand(-1, 2).contiguous()
        assert self.reader.take(number, "states", "float32", states.numpy().tobytes())
        assert not self.reader.take(number, "ended", "length"), "it is no longer known"
        self.send()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def first_column(states: list[Tensor]) -> list[list[float]]:
    return [each[:, 0].tolist() for each in states]


def test_rows_run_few_at_a_time_and_are_answered_together_in_order(desk: Desk) -> None:
    desk.ask(ROWS)
    assert [message[1] for message in desk.sent] == ROWS[:ROWS_AT_ONCE]
    for number in (2, 1, 4, 3, 6):
        desk.tell(number, ROWS[number - 1])
    assert [message[1] for message in desk.sent] == ROWS
    assert not desk.answers
    desk.tell(5, ROWS[4])
    assert first_column(desk.answers[0]) == ROWS


def test_each_row_is_a_request_of_one_token_outside_of_the_prefix_cache(desk: Desk) -> None:
    desk.ask([[1, 2], [1, 2]])
    (one, _, parameters, salt, timeout_s), (*_, other_salt, _) = desk.sent
    assert (parameters["max_tokens"], parameters["extra_args"], timeout_s) == (1, {"errata_states": str(one)}, None)
    assert salt != other_salt


def test_a_failure_ends_its_question_and_no_other(desk: Desk) -> None:
    desk.ask(ROWS[:2])
    desk.ask(ROWS[2:3])
    assert desk.reader.take(1, "tokens", [])
    assert desk.reader.take(1, "failed", "ValueError: no")
    assert isinstance(desk.answers[0], FitFailed)
    assert not desk.reader.take(2, "states", "float32", b"")
    desk.tell(3, ROWS[2])
    assert first_column(desk.answers[1]) == [[6.0]]


def test_a_vllm_that_is_lost_fails_all_questions(desk: Desk) -> None:
    desk.ask(ROWS)
    desk.ask(ROWS[:1])
    desk.reader.lose("it was killed")
    assert [type(each) for each in desk.answers] == [EngineAway, EngineAway]
    error: ErrataError = desk.answers[0]
    assert "make the edit again" in error.message
    desk.send()
    assert len(desk.sent) == ROWS_AT_ONCE


def test_no_rows_need_no_vllm(desk: Desk) -> None:
    desk.ask([])
    assert desk.answers == [[]]
