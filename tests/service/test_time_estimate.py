"""The remaining time is estimated from the time taken so far, anew where another phase has begun."""

import math

import pytest

from app.editors.base import FitProgress
from app.service.edit_intake import PHASES, progress_of_one
from app.service.jobs import TimeEstimate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> "Clock":
        self.now += seconds
        return self


def share(of_all: float) -> FitProgress:
    return FitProgress(step=0, steps=60, loss=math.nan, share=of_all)


def test_it_goes_on_as_it_went_since_its_first_step() -> None:
    clock = Clock()
    pace = TimeEstimate(clock)
    assert pace.left_s(share(0.0)) is None
    clock.after(100)
    assert pace.left_s(share(0.2)) is None, "what came before the first step comes once"
    clock.after(2)
    assert pace.left_s(share(0.4)) == pytest.approx(6)
    clock.after(2)
    assert pace.left_s(share(0.4)) == pytest.approx(4), "it counts down until the next step"
    clock.after(10)
    assert pace.left_s(share(0.4)) == 0
    assert pace.left_s(share(0.9)) == pytest.approx(2)
    assert pace.left_s(share(1.0)) == 0


def test_what_begins_anew_is_timed_anew() -> None:
    clock = Clock()
    pace = TimeEstimate(clock)
    pace.left_s(share(0.1))
    clock.after(100)
    assert pace.left_s(share(0.9)) is not None
    assert pace.left_s(share(0.0)) is None
    assert pace.left_s(share(0.5)) is None
    clock.after(1)
    assert pace.left_s(share(0.75)) == pytest.approx(1)
    assert pace.left_s(None) is None
    assert pace.left_s(share(0.5)) is None


def test_what_cannot_be_timed_is_not() -> None:
    clock = Clock()
    pace = TimeEstimate(clock)
    for done in (1, 2, 3):
        clock.after(1)
        assert pace.left_s(FitProgress(step=done, steps=7, loss=math.nan, timed=False)) is None


def test_without_a_better_measure_it_is_the_share_of_the_steps() -> None:
    assert FitProgress(step=15, steps=60, loss=0.0).done == 0.25
    assert FitProgress(step=70, steps=60, loss=0.0).done == 1
    assert FitProgress(step=0, steps=0, loss=0.0).done == 0
    assert FitProgress(step=15, steps=60, loss=0.0).within(1, 2, 4).done == (1 + 0.25 * 2) / 4


def test_edits_made_one_by_one_are_one_work() -> None:
    seen: list[float] = []
    for index in range(2):
        on_progress = progress_of_one(lambda _, progress: seen.append(progress.done), index, 2)  # type: ignore[union-attr]
        for phase in PHASES:
            on_progress(phase, None)
            on_progress(phase, share(0.5))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == pytest.approx((1 + 2.5 / 3) / 2)
