"""The section on scope decisions: its rows differ by what has to be encoded."""

import threading
from pathlib import Path

import pytest

from app.bench import scope_decisions
from app.bench.scope_index import SectionStopped


@pytest.mark.slow
def test_the_rows_differ_by_what_has_to_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope_decisions, "EDITS", 60)
    monkeypatch.setattr(scope_decisions, "QUESTIONS", 2)
    rows: dict[str, dict[str, float]] = {}
    scope_decisions.measure(tmp_path, threading.Event(), rows.__setitem__)
    assert list(rows) == ["in memory", "on disk", "not kept"]
    assert all(0 < row["decision_ms"] <= row["most_ms"] for row in rows.values())
    assert max(rows[name]["texts"] for name in ("in memory", "on disk")) <= 2, "the readings of the question alone"
    assert rows["not kept"]["texts"] > 4


def test_its_thread_ends_with_the_section(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(SectionStopped):
        scope_decisions.measure(tmp_path, stopped, lambda *_: None)
