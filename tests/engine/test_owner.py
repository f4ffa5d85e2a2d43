"""The engine's thread."""

import time
from itertools import pairwise

import pytest
import torch

from app.bootstrap import engine_threads
from app.config import Settings
from app.engine import memory
from app.engine.owner import EngineOwner
from tests.rig import Rig


def test_torchs_workers_are_the_engines_alone() -> None:
    """Two pools of workers on the same cores make each other slow."""
    before = torch.get_num_threads()
    try:
        wanted = engine_threads(Settings(_env_file=None, torch_threads=3))  # type: ignore[call-arg]
        owner = EngineOwner(Rig().engine, wanted)
        owner.start()
        assert owner.call(torch.get_num_threads).result(10) == 3
        assert torch.get_num_threads() == 1
        owner.stop()
    finally:
        torch.set_num_threads(before)


def test_freed_memory_goes_back_to_the_system_once_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[float] = []
    monkeypatch.setattr(memory, "trim_heap", lambda: trimmed.append(time.monotonic()))
    monkeypatch.setattr(memory, "TRIM_PERIOD_S", 0.05)
    owner = EngineOwner(Rig().engine)
    owner.start()
    ends = time.monotonic() + 0.5
    while time.monotonic() < ends:
        owner.call(lambda: None).result(10)
    busy = len(trimmed)
    assert 2 <= busy <= 10
    assert all(later - earlier >= 0.04 for earlier, later in pairwise(trimmed))
    ends = time.monotonic() + 10
    while len(trimmed) < busy + 2 and time.monotonic() < ends:
        time.sleep(0.02)
    assert len(trimmed) >= busy + 2, "an idle engine gives back too"
    owner.stop()


def test_a_system_whose_heap_cannot_be_trimmed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.trim_heap()  # this one's, whatever it is
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.trim_heap()
