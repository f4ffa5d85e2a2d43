"""The engine uses as many threads as cores are free: fewer while another process computes, all of them afterwards."""

import threading
from pathlib import Path

import pytest

from app.engine import cores
from app.engine.cores import Cores, CpuTimes, read


class Machine:
    """Two cores, of which others take a share; this process takes what its threads can."""

    def __init__(self) -> None:
        self.now = self.computed = self.idle = 0.0

    def __call__(self) -> CpuTimes:
        return CpuTimes(self.now, self.computed, self.idle)

    def passes(self, computed: float, idle: float) -> None:
        """A second, with so much computed here and so much idle, of two."""
        self.now, self.computed, self.idle = self.now + 1, self.computed + computed, self.idle + idle


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(cores.time, "monotonic", lambda: made.now)
    return made


def test_threads_follow_what_others_leave(machine: Machine) -> None:
    found = Cores(2, machine)
    seen = []
    for computed, idle in (
        (1.9, 0.1),  # alone
        (1.3, 0.0),  # a busy loop has begun: three threads on two cores
        (1.0, 0.0),  # one thread now
        (0.7, 0.0),  # two more threads have come
        (1.0, 0.9),  # all have gone
        (0.0, 2.0),  # nothing is asked
    ):
        machine.passes(computed, idle)
        found.changed()
        seen.append(found.threads)
    assert seen == [2, 1, 1, 1, 2, 2]


def test_it_looks_now_and_then_only(machine: Machine) -> None:
    found = Cores(2, machine)
    machine.now += cores.PERIOD_S / 2
    assert not found.changed()
    machine.passes(1.0, 0.0)
    assert found.changed()
    assert not found.changed()


def test_where_the_system_does_not_tell_threads_stay(tmp_path: Path) -> None:
    assert read(tmp_path / "absent") is None
    sandbox = tmp_path / "stat"
    sandbox.write_text("cpu 0 0 0 0 0 0\n" + "".join(f"cpu{at} 0 0 0 0 0 0\n" for at in range(256)))
    assert read(sandbox) is None, "a sandbox that counts nothing"
    found = Cores(4, lambda: None)
    assert not found.changed()
    assert found.threads == 4


def test_this_machine_is_read() -> None:
    before, after = read(), read()
    assert before is not None
    assert after is not None
    assert after.passed >= before.passed
    assert after.idle >= before.idle >= 0


def test_all_threads_leave_the_cores_on_which_others_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[int, set[int]] = {}
    monkeypatch.setattr(cores, "AT_START", frozenset({0, 1, 2}))
    monkeypatch.setattr(cores.os, "sched_setaffinity", moved.__setitem__, raising=False)
    cores.leave({0, 1, 2})
    assert not moved, "there are no others"
    held = threading.Event()
    thread = threading.Thread(target=held.wait)
    thread.start()
    try:
        cores.leave({0, 1, 7})
        assert {threading.get_native_id(), thread.native_id} <= moved.keys()
        assert set(map(frozenset, moved.values())) == {frozenset({2})}
    finally:
        held.set()
        thread.join()
