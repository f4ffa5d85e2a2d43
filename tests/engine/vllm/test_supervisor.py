"""The supervisor of a vLLM that dies, hangs, and cannot be started. A stand-in takes the place of each life of it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from app.domain.errors import UnsupportedModel
from app.engine.vllm import supervisor as module
from app.engine.vllm.session import Change, Take, VllmSession
from app.engine.vllm.supervisor import Lost, Recovery, VllmSupervisor, pause_s

WAIT_S = 60


class Life(VllmSession):
    """A life of vLLM: it tells what the test puts into `told`, and dies of a text. A dumb one answers no pulse."""

    def __init__(self, *, dumb: bool = False, refused: str = "", begins: threading.Event | None = None) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.dumb, self.refused, self.begins = dumb, refused, begins
        self.pulses, self.graces = 0, list[float]()
        self.listened, self.now, self.heard_at_s = threading.Event(), time.monotonic, 0.0

    def begin(self) -> None:
        if self.begins is not None:
            assert self.begins.wait(WAIT_S)
        if self.refused:
            raise UnsupportedModel(self.refused)

    def listen(self, take: Take) -> str:
        self.listened.set()
        while not isinstance(told := self.told.get(timeout=WAIT_S), str):
            now_s = self.now()
            take(told)
            self.heard_at_s = now_s
        return told

    def pulse(self) -> None:
        self.pulses += 1
        if not self.dumb:
            self.told.put([])

    def end(self, grace_s: float) -> None:
        self.graces.append(grace_s)
        self.told.put("it was ended")
        if self.begins is not None:
            self.refused = "it was ended"
            self.begins.set()

    def add(self, *_: Any) -> None: ...

    def abort(self, request: int) -> None: ...

    def change(self, change: Change) -> None: ...


Supervise = Callable[..., VllmSupervisor]


@pytest.fixture
def supervise() -> Iterator[Supervise]:
    """Supervises these lives, one after the other, in the time of tests."""
    made: list[VllmSupervisor] = []

    def supervise(*lives: Life, deadline_s: float = WAIT_S) -> VllmSupervisor:
        rest = iter(lives)
        made.append(VllmSupervisor(lambda: next(rest), deadline_s=deadline_s, pulse_s=0.01, unit_s=0.01))
        made[0].start(lambda: None)
        return made[0]

    yield supervise
    for each in made:
        each.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that silence is measured by, in seconds: `now` stands until a test moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def next_of(supervisor: VllmSupervisor) -> Any:
    return supervisor.events.get(timeout=WAIT_S)


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_what_vllm_tells_comes_in_order_and_signs_of_life_are_no_events(supervise: Supervise) -> None:
    life = Life()
    supervisor = supervise(life)
    for told in ([[1, "late"]], [], [[2, "late"]]):
        life.told.put(told)
    assert [next_of(supervisor) for _ in range(2)] == [[[1, "late"]], [[2, "late"]]]


def test_one_that_dies_is_followed_by_another(supervise: Supervise) -> None:
    first, second = Life(), Life()
    supervisor = supervise(first, second)
    first.told.put("it has died")
    assert next_of(supervisor) == Lost("it has died")
    assert next_of(supervisor) == Recovery(second)
    assert first.graces == [0], "what is left of it is ended at once"
    second.told.put([[3, "late"]])
    assert next_of(supervisor) == [[3, "late"]]


def test_attempts_go_on_until_one_succeeds_and_each_failure_is_logged(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = Life(), Life()
    supervisor = supervise(first, Life(refused="no memory"), Life(refused="no memory"), last)
    first.told.put("it has died")
    next_of(supervisor)
    assert next_of(supervisor) == Recovery(last)
    assert [each.levelname for each in caplog.records] == ["ERROR", "ERROR", "ERROR", "WARNING"]
    assert "no memory" in caplog.text


def test_the_wait_between_attempts_grows_up_to_a_minute() -> None:
    assert [pause_s(failures) for failures in (0, 1, 2, 3, 7, 2000)] == [0, 1, 2, 4, 60, 60]


def test_one_that_answers_pulses_is_left_alone_however_long_its_step_takes(
    supervise: Supervise, clock: SimpleNamespace
) -> None:
    life = Life()
    supervisor = supervise(life, deadline_s=2.0)
    assert life.listened.wait(WAIT_S)
    life.now = lambda: clock.now
    for _ in range(6):  # three times as long as one may be silent
        clock.now += 1.0
        until(lambda: life.heard_at_s == clock.now)
    assert life.pulses >= 6
    assert life.graces == []
    assert supervisor.events.empty()


def test_one_that_hangs_is_ended_and_counts_as_dead(supervise: Supervise, clock: SimpleNamespace) -> None:
    dumb, next_life = Life(dumb=True), Life()
    supervisor = supervise(dumb, next_life, deadline_s=2.0)
    assert dumb.listened.wait(WAIT_S)
    for _ in range(2):
        clock.now += 0.9
        until(lambda: dumb.pulses > 0)
    assert supervisor.events.empty(), "it may be silent for longer"
    clock.now += 0.5
    assert next_of(supervisor) == Lost("it has not answered for 2 s")
    assert dumb.pulses == 1, "one question at a time"
    assert next_of(supervisor) == Recovery(next_life)


def test_a_first_one_that_cannot_be_started_is_refused() -> None:
    life = Life(refused="no such model")
    with pytest.raises(UnsupportedModel, match="no such model"):
        VllmSupervisor(lambda: life, deadline_s=WAIT_S)
    assert life.graces == [0]


def test_a_stop_ends_an_attempt_under_way(supervise: Supervise) -> None:
    first, starting = Life(), Life(begins=threading.Event())
    supervisor = supervise(first, starting)
    first.told.put("it has died")
    next_of(supervisor)
    until(lambda: supervisor.session is starting)
    supervisor.stop()
    assert starting.graces
    assert supervisor.events.empty()
