"""How an evaluation fits a time, on a clock that stands still unless it is moved."""

import pytest

from app.evaluation.time_limit import ASKING, FigureGroup, QuestionLimits, TimeLimit, spread


class FakeClock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


async def nothing(_: QuestionLimits) -> dict[str, object]:
    return {}


def parts(*questions_an_edit: int) -> list[FigureGroup]:
    return [FigureGroup("x", lambda extent, q=q: q * extent.edits, nothing) for q in questions_an_edit]  # type: ignore[misc]


def test_without_an_end_everything_is_asked() -> None:
    time_limit = TimeLimit()
    time_limit.note(1, 1e9)
    assert time_limit.may_edit(1e9, 1e9)
    whole = QuestionLimits()
    assert time_limit.extent(parts(1), whole, 10) == (whole, 1.0)


def test_edits_are_made_while_what_is_left_is_enough_to_ask() -> None:
    clock = FakeClock()
    time_limit = TimeLimit(200.0, clock)
    clock.now += 100  # a model that loads
    time_limit.begin()
    time_limit.note(10, 5.0)
    assert time_limit.question_s == 0.5
    assert time_limit.may_edit(10.0, 60)
    assert time_limit.may_edit(100 * (1 - ASKING), 10_000), "questions may be cut down"
    assert not time_limit.may_edit(100 * (1 - ASKING) + 1, 10_000)
    clock.now += 65
    assert not time_limit.may_edit(6.0, 60)
    assert time_limit.may_edit(5.0, 60)


def test_what_is_asked_is_cut_down_to_what_is_left() -> None:
    clock = FakeClock()
    time_limit = TimeLimit(100.0, clock)
    time_limit.note(1, 1.0)
    whole = QuestionLimits()
    assert time_limit.extent(parts(1), whole, 100) == (whole, 1.0)
    extent, share = time_limit.extent(parts(1, 1), whole, 100)
    assert (extent.edits, share) == (50, 0.5)
    assert (extent.unrelated, extent.texts, extent.modes, extent.paraphrases) == (150, 25, 50, 3)
    clock.now += 100
    extent, share = time_limit.extent(parts(1), whole, 100)
    assert (extent.edits, extent.overhead, share) == (2, 1, 0.02), "of everything a little"


def test_a_few_are_taken_evenly() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([], 5) == []


@pytest.mark.parametrize("edits", [1, 3])
def test_a_share_is_of_at_least_one(edits: int) -> None:
    assert QuestionLimits().scaled(0.02, edits).edits == 1
