"""A run fits its time, on a clock that only moves when a fake contestant works."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.bench.budget import SCALES, Speed, TimeBudget, WorkloadFit, fitted, shrunk
from app.bench.comparison import Bench, RoundResults, size
from app.bench.sections import SECTIONS, UNDER_WAY, WEIGHTS, run_sections
from app.bench.server_setup import HITS, affordable_counts
from app.bench.workload import PromptSpec


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def linear(scale: float) -> float:
    return scale


def test_a_workload_is_cut_down_to_what_still_runs_side_by_side() -> None:
    specs = [PromptSpec("x", (1, 2), 64) for _ in range(48)]
    assert shrunk(specs, 1.0, 16) == specs
    half = shrunk(specs, 0.5, 16)
    assert (len(half), half[0].tokens) == (24, 32)
    least = shrunk(specs, 0.0625, 16)
    assert (len(least), least[0].tokens) == (24, 8)
    assert len(shrunk(specs, 0.0625)) == 48, "all of them are to run at once"
    assert shrunk([PromptSpec("x", (1,), 1)], 0.0625, 1) == [PromptSpec("x", (1,), 1)], "an answer is not made longer"


def test_seconds_grow_with_prompts_and_answers() -> None:
    speed = Speed(0.01, (1, 0.1), (16, 0.4))
    assert speed.step_s(1) == pytest.approx(0.1)
    assert speed.step_s(16) == pytest.approx(0.4)
    assert speed.step_s(31) == pytest.approx(0.7)
    assert speed.seconds([PromptSpec("x", (1,) * 10, 20)] * 16, None) == pytest.approx(1.6 + 20 * 0.4)
    assert speed.seconds([PromptSpec("x", (1,) * 10, 20)] * 16, 1) == pytest.approx(1.6 + 320 * 0.1)
    assert Speed(0.01, (1, 0.2), (16, 0.1)).step_s(64) == 0.2, "no batch is faster than one row"


def test_time_is_saved_on_answers_first_then_on_rounds() -> None:
    whole = 1 / SCALES[-1]  # seconds of a round at full scale, where one at the smallest takes a second
    assert fitted(1.0, linear, 3, 4 * whole) == WorkloadFit(1.0, 3, warm=True)
    assert fitted(1.0, linear, 3, 3 * whole) == WorkloadFit(1.0, 3)
    assert fitted(1.0, linear, 3, 1.6 * whole) == WorkloadFit(0.5, 3)
    assert fitted(1.0, linear, 3, 0.6 * whole) == WorkloadFit(0.25, 2), "a scale below a quarter costs a round"
    assert fitted(1.0, linear, 3, 0.2 * whole) == WorkloadFit(0.1875, 1)
    assert fitted(1.0, linear, 3, 0.9) == WorkloadFit(SCALES[-1], 0), "not even the smallest fits again"


def test_no_more_edits_are_loaded_than_there_is_time_for() -> None:
    assert affordable_counts([100, 10_000], 0.004, float("inf")) == [100, 10_000]
    assert affordable_counts([100, 10_000], 0.004, 60.0) == [100, 10_000]
    assert affordable_counts([100, 10_000], 0.02, 36.0) == [100, 1_700]
    assert affordable_counts([100, 10_000], 1.0, 36.0) == [36, HITS]
    assert affordable_counts([100, 10_000], 1.0, 0.0) == [HITS], "a namespace holds no fewer"


def test_what_a_section_leaves_goes_to_the_next() -> None:
    clock = FakeClock()
    pace = TimeBudget(100.0, clock)
    assert pace.begin("a", {"a": 1, "b": 1}) == pytest.approx(62.5), "its half, and some overrun"
    assert pace.part(0.5) == pytest.approx(25.0)
    clock.now += 20
    assert pace.part() == pytest.approx(30.0)
    assert pace.begin("b", {"b": 1}) == pytest.approx(80.0), "the last may not overrun the end"
    clock.now += 81
    assert pace.over
    assert pace.part() == 0.0
    free = TimeBudget()
    assert (free.begin("a", {"a": 1}), free.part(), free.over, free.left) == (None, None, False, float("inf"))


def test_a_load_that_takes_all_the_time_leaves_some_to_measure_in() -> None:
    clock = FakeClock()
    pace = TimeBudget(100.0, clock)
    clock.now += 30
    pace.loaded()
    assert pace.begin("a", {"a": 1}) == pytest.approx(70.0)
    clock.now += 70
    pace.loaded()
    assert pace.begin("a", {"a": 1}) == pytest.approx(5.0), "whatever loading took"


def bench(pace: TimeBudget, told: list[str], rounds: int = 3) -> Bench:
    return Bench(None, None, None, None, rounds, told.append, told.append, pace)  # type: ignore[arg-type]


def working(clock: FakeClock, seconds: float, scales: list[float]) -> Callable[[float], Awaitable[float]]:
    async def way(scale: float) -> float:
        scales.append(scale)
        clock.now += seconds * scale
        return scale

    return way


def take_turns(
    seconds: float | None, slow: float = 16.0
) -> tuple[RoundResults[float], list[float], list[RoundResults[float]], float]:
    clock, scales, kept = FakeClock(), list[float](), list[RoundResults[float]]()
    pace = TimeBudget(seconds, clock)
    pace.begin("x", {"x": 1})

    async def story() -> RoundResults[float]:
        ways = {"a": working(clock, slow, scales), "b": working(clock, slow, [])}
        return await bench(pace, []).turns(ways, linear, str, kept.append)

    turns = asyncio.run(story())
    return turns, scales, kept, clock.now - 1000


def test_turns_fit_their_time() -> None:
    turns, scales, kept, took = take_turns(None)
    assert (scales, turns.whole, took) == ([1.0] * 4, True, 128.0)
    assert len(kept) == 6, "after every run of every contestant"
    turns, scales, _, took = take_turns(60.0)
    assert (scales[0], turns.scale, turns.rounds) == (SCALES[-1], 0.5, 3)
    assert took == 2 + 3 * 16
    told = size(turns, [PromptSpec("x", (1,), 64)] * 4, 1)
    assert told == {"size": {"requests": [2, 4], "tokens": [64, 256], "rounds": [3, 3], "warmed_up": True}}
    turns, scales, kept, took = take_turns(3.0)
    assert (turns.warmed, turns.rounds, turns.runs) == (False, 1, {"a": [SCALES[-1]], "b": [SCALES[-1]]})
    assert len(kept) == 1, "the first runs are better than none"


def test_a_round_that_would_not_fit_any_more_is_not_begun() -> None:
    clock = FakeClock()
    pace = TimeBudget(40.0, clock)
    pace.begin("x", {"x": 1})
    seconds = iter([1.0, 12.0, 25.0, 25.0])

    async def way(scale: float) -> float:
        clock.now += next(seconds)
        return scale

    async def story() -> RoundResults[float]:
        return await bench(pace, []).turns({"a": way}, lambda _: 12.0 if _ == 1.0 else 1.0, str, lambda _: None)

    turns = asyncio.run(story())
    assert (turns.wanted, turns.rounds) == (3, 2)


def run(sections: dict[str, Any], pace: TimeBudget, cancel: bool = False) -> list[Any]:
    kept: list[Any] = []

    async def story() -> None:
        def keep(name: str, found: dict[str, Any], why: str | None) -> None:
            kept.append((name, dict(found), why))

        task = asyncio.ensure_future(run_sections(bench(pace, []), list(sections), keep, lambda _: None, sections))
        if cancel:
            while not kept:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    return kept


async def quick(_: Bench) -> dict[str, Any]:
    return {"x": 1}


async def endless(bench: Bench) -> dict[str, Any]:
    bench.keep({"y": 1})
    await asyncio.Event().wait()
    return {}


def test_a_section_that_is_not_ended_in_time_keeps_what_it_has() -> None:
    assert run({"quick": quick}, TimeBudget()) == [("quick", {"x": 1}, None)]
    # the clock stands still: the hard end comes by the loop's own clock, and at once for a share of nothing
    pace = SimpleNamespace(begin=lambda *_: 0.0, over=False)
    found = run({"endless": endless, "quick": quick}, pace)  # type: ignore[arg-type]
    assert found[:2] == [("endless", {"y": 1}, UNDER_WAY), ("endless", {"y": 1}, "its time was over")]
    assert found[-1] == ("quick", {"x": 1}, None)


def test_no_section_begins_after_the_end() -> None:
    clock = FakeClock()
    pace = TimeBudget(5.0, clock)
    clock.now += 5
    assert run({"quick": quick}, pace) == [("quick", {}, "it was not begun, as no time was left")]


def test_a_run_that_is_stopped_keeps_what_it_has() -> None:
    found = run({"endless": endless, "quick": quick}, TimeBudget(), cancel=True)
    assert found[1:] == [("endless", {"y": 1}, "it was stopped")]


@pytest.mark.parametrize("seconds", [2.0, 60.0, 600.0])
def test_a_run_of_several_sections_takes_its_time_and_a_tenth_at_most(seconds: float) -> None:
    """A round of each section takes 30 seconds whole, and 1.9 at the smallest scale."""
    clock, took = FakeClock(), dict[str, float]()
    pace = TimeBudget(seconds, clock)

    async def section(bench: Bench) -> dict[str, Any]:
        ways = {"ours": working(clock, 15.0, []), "theirs": working(clock, 15.0, [])}
        turns = await bench.turns(ways, linear, str, lambda turns: bench.keep({"scale": turns.scale}))
        return {"scale": turns.scale, "rounds": turns.rounds}

    def keep(name: str, found: dict[str, Any], why: str | None) -> None:
        if why is None:
            took[name] = clock.now
            scales[name] = found["scale"]

    scales = dict[str, float]()
    clock.now += seconds / 10  # a model that loads
    pace.loaded()
    names = ("peers", "http", "edits")
    asyncio.run(run_sections(bench(pace, []), names, keep, lambda _: None, dict.fromkeys(names, section)))
    assert clock.now - 1000 <= 1.1 * seconds
    if seconds == 2.0:
        assert scales == {"peers": SCALES[-1]}, "there is no time for more"
    else:
        assert set(scales) == set(names), "each has its share"
        assert (min(scales.values()) == 1.0) == (seconds == 600.0)


def test_every_section_has_a_share() -> None:
    assert set(WEIGHTS) == set(SECTIONS)
