"""The engine's thread."""

import queue
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.bootstrap import engine_threads
from app.config import Settings
from app.domain.errors import RequestCancelled
from app.domain.generation import GenerationParameters, Token
from app.engine import memory
from app.engine.engine import Engine
from app.engine.owner import EngineFailed, EngineOwner
from app.engine.runner import Runner
from tests.rig import NOTHING, Rig, without_cache


def test_torchs_workers_are_the_engines_alone() -> None:
    """Two pools of workers on the same cores make each other slow."""
    before = torch.get_num_threads()
    try:
        wanted = engine_threads(Settings(_env_file=None, torch_threads=3))  # type: ignore[call-arg]
        owner = EngineOwner(Rig().engine, wanted)
        owner.start()
        assert owner.call(torch.get_num_threads).result(60) == 3
        assert torch.get_num_threads() == 1
        owner.stop()
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that heap trims go by, in seconds: `now` stands until a test moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_heap_is_trimmed_once_a_period_after_what_can_be_freed_is_freed(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(memory, "trim_heap", lambda: done.append("trim"))
    heap = memory.HeapTrim(lambda: done.append("free"))
    assert heap.due_in_s == memory.TRIM_PERIOD_S
    for now, due_in_s in ((0.0, 60.0), (59.0, 1.0), (60.0, 60.0), (119.0, 1.0), (300.0, 60.0), (301.0, 59.0)):
        clock.now = 100.0 + now
        heap.trim_if_due()
        assert heap.due_in_s == due_in_s
    assert done == ["free", "trim"] * 2, "at 60 and at 300: periods that were missed are not made up for"
    clock.now = 1000.0
    assert heap.due_in_s == 0, "a time to wait is never negative"


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_the_engine_gives_memory_back_whether_it_is_busy_or_idle(
    busy: bool, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: queue.SimpleQueue[float] = queue.SimpleQueue()
    monkeypatch.setattr(memory, "trim_heap", lambda: trims.put(clock.now))
    monkeypatch.setattr(memory, "TRIM_PERIOD_S", 0.01)  # an idle engine waits so long for mail, on the real clock
    if busy:
        monkeypatch.setattr(Engine, "idle", False)
    owner = EngineOwner(Rig().engine)
    owner.start()
    for _ in range(20):
        owner.call(lambda: None).result(60)
    assert trims.empty(), "the clock stands: no trim is due"
    for _ in range(3):
        clock.now += 1.0
        assert trims.get(timeout=60) == clock.now
    owner.stop()
    assert trims.empty()


def test_a_failed_pass_ends_every_request_and_the_engine_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(slots=2)
    owner = EngineOwner(rig.engine)
    emitted: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(3)]
    decode, passes = Runner.decode, 0

    def fail_once(*arguments: Any) -> Any:
        nonlocal passes
        logits = decode(*arguments)
        passes += 1
        if passes == 2:  # keys and values are written, and the third request waits for a slot
            raise RuntimeError("out of memory")
        return logits

    monkeypatch.setattr(Runner, "decode", fail_once)
    owner.start()

    def generate(prompts: list[str], emits: list[queue.SimpleQueue[Any]]) -> None:
        asked = [(prompt, GenerationParameters(max_new_tokens=8)) for prompt in prompts]
        prepared = [rig.engine.prepare(prompt, NOTHING) for prompt in prompts]
        owner.generate(asked, NOTHING, 0, [each.put for each in emits], prepared, 0.0).result(60)

    def all_of(items: queue.SimpleQueue[Any]) -> list[Any]:
        found = [items.get(timeout=60)]
        while isinstance(found[-1], Token):
            found.append(items.get(timeout=60))
        return found

    generate(["one", "two", "waits"], emitted)
    for items in map(all_of, emitted):
        assert isinstance(items[-1], EngineFailed)
        assert "RuntimeError" in items[-1].message
    assert owner.alive
    generate(["three"], emitted[:1])
    *tokens, _ = all_of(emitted[0])
    assert [token.id for token in tokens] == without_cache(rig.hosted, "three", 8)
    owner.stop()
    assert all(items.empty() for items in emitted), "each request ended once"


def test_a_system_whose_heap_cannot_be_trimmed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.trim_heap()  # this one's, whatever it is
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.trim_heap()


def test_nobody_waits_for_an_engine_that_has_ended() -> None:
    owner = EngineOwner(Rig().engine)
    owner.start()
    owner.stop()
    with pytest.raises(RequestCancelled):
        owner.call(lambda: None).result(60)
    with pytest.raises(RequestCancelled):
        owner.fit("grace", [], NOTHING).result(60)


def test_an_engine_whose_thread_fails_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def fail(_wake: Any) -> None:
        raise RuntimeError("no device")

    monkeypatch.setattr(rig.engine, "start", fail)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    owner = EngineOwner(rig.engine)
    called = owner.call(lambda: "done")
    owner.start()
    assert called.result(60) == "done"
    ends = time.monotonic() + 60
    while owner.alive:
        assert time.monotonic() < ends
        time.sleep(0.01)
    with pytest.raises(RequestCancelled):
        owner.call(lambda: None).result(60)


def test_an_engine_that_cannot_end_its_requests_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, stopped = Rig(), threading.Event()

    def fail(*_: Any) -> None:
        raise RuntimeError("no device")

    monkeypatch.setattr(rig.engine, "start", fail)
    monkeypatch.setattr(rig.engine, "end_all", fail)
    monkeypatch.setattr(rig.engine, "stop", stopped.set)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    owner = EngineOwner(rig.engine)
    called = owner.call(lambda: "done")
    owner.start()
    assert called.result(60) == "done"
    assert stopped.wait(60), "what the engine started ends with it"
