"""An evaluation fits a time limit, on a clock that stands still unless it is moved."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.evaluation.candidates import ServedEditor
from app.evaluation.time_limit import ASKING, FigureGroup, QuestionLimits, TimeLimit, spread
from tests.evaluation.test_run import CASES, plan, run


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


@pytest.mark.parametrize(("loading", "end_s"), [(0.0, 105.0), (60.0, 45.0), (99.0, 10.0), (100.0, 10.0)])
def test_a_run_takes_its_time_and_a_tenth_at_most_if_loading_leaves_any(loading: float, end_s: float) -> None:
    clock = FakeClock()
    time_limit = TimeLimit(100.0, clock)
    clock.now += loading
    time_limit.begin()
    assert time_limit.end_s == pytest.approx(end_s)
    assert TimeLimit().end_s is None


def test_a_few_are_taken_evenly() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([], 5) == []


@pytest.mark.parametrize("edits", [1, 3])
def test_a_share_is_of_at_least_one(edits: int) -> None:
    assert QuestionLimits().scaled(0.02, edits).edits == 1


@pytest.mark.slow
def test_what_takes_longer_than_predicted_is_ended_with_the_figures_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time passes by the clock of the limit, so everything seems to fit; the end comes with the last figure."""
    began: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        if seconds != 105.0:
            return timeout(seconds)
        began.append(timeout(None))
        return began[0]

    async def endless(*_: Any) -> None:
        began[0].reschedule(0.0)
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "timeout", noted)
    monkeypatch.setattr(ServedEditor, "overhead", endless)
    (cut,) = run(tmp_path, how=plan(steps=(), cases=CASES[:1]), time_limit=TimeLimit(100.0, lambda: 0.0))
    assert (cut["edits"], cut["SR"]["right"], cut["asked"]) == (1, 1, 1)
    assert cut["incomplete"] == ["overhead"]
