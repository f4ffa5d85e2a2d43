"""The section on the scope's index: its figures are of an index as large as it says."""

import threading

import pytest
import torch

from app.bench import scope_index
from app.scope import keys


def test_the_figures_are_of_both_ways_over_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    cosines = keys.KeyIndex.cosines

    def counted(self: keys.KeyIndex, queries: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        seen.append(len(places))
        return cosines(self, queries, places)

    monkeypatch.setattr(keys.KeyIndex, "cosines", counted)
    monkeypatch.setattr(keys, "MANY", 1024)
    real = torch.nn.functional.normalize(torch.randn(100, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    found = scope_index.measure(real, 700, 3, threading.Event())
    assert set(found) == {"nearest_ms", "most_ms", "whole_ms", "times_as_fast"}
    assert 0 < found["nearest_ms"] <= found["most_ms"]
    assert seen.count(2_100) >= scope_index.QUERIES, "each question is asked of all keys once, at least"
    assert min(seen) < 2_100, "the outline is used"


def test_its_thread_ends_with_the_section() -> None:
    """The process waits for its threads, so that a run would otherwise end after its time."""
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(scope_index.SectionStopped):
        scope_index.measure(torch.eye(8), 700, 3, stopped)
