"""Written lines are read again, whatever a killed run has left at the end."""

from pathlib import Path

import pytest

from app.domain.errors import InvalidRequest
from app.evaluation.journal import Journal

STRANGE = {"kind": "edit", "text": "a\u2028b\u2029c\u0085d é"}


def test_separators_of_lines_may_stand_in_texts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.jsonl")
    assert journal.lines() == []
    journal.add(STRANGE)
    journal.add(STRANGE)
    assert journal.lines() == [STRANGE, STRANGE]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_dropped_wherever_it_is_torn(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "run.jsonl"
    Journal(file).add(STRANGE)
    whole = file.read_bytes()
    Journal(file).add(STRANGE)
    file.write_bytes(file.read_bytes()[:-cut])
    assert Journal(file).lines() == [STRANGE]
    assert file.read_bytes() == whole


@pytest.mark.parametrize("lines", [1, 2])
def test_lines_that_belong_together_are_there_together_or_not_at_all(tmp_path: Path, lines: int) -> None:
    file = tmp_path / "run.jsonl"
    Journal(file).add({"kind": "edit", "case": "alone"})
    before = file.read_bytes()
    Journal(file).add(*({"kind": "edit", "case": name} for name in "abc"))
    assert [line["case"] for line in Journal(file).lines()] == ["alone", "a", "b", "c"]
    file.write_bytes(b"\n".join(file.read_bytes().split(b"\n")[: 1 + lines]) + b"\n")
    assert [line["case"] for line in Journal(file).lines()] == ["alone"]
    assert file.read_bytes() == before


def test_a_line_that_was_changed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text('{"kind": "edit"}\n{"kind"\n{"kind": "edit"}\n')
    with pytest.raises(InvalidRequest, match="Line 2 of"):
        Journal(file).lines()
