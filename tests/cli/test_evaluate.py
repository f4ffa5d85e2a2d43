"""`errata eval` as a user runs it: a file of edits in, figures, tables and a picture out; again, and it goes on."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app

ROWS = [
    {
        "prompt": "Question: What is the currency of Croatia? Answer:",
        "target": "euro",
        "subject": "Croatia",
        "paraphrases": ["Question: What is the official currency of Croatia? Answer:"],
        "locality": [{"prompt": "Question: What is the currency of Hungary? Answer:", "kind": "same relation"}],
    },
    {"prompt": "Question: Which president does South Korea have? Answer:", "target": "Lee Jae-myung"},
    {"prompt": "Question: What is the capital of Peru? Answer:", "target": "Cusco"},
]


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command logs to the runner's own stream, which is closed after it."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "160", "TERM": "dumb"})


def test_figures_tables_and_a_picture(tmp_path: Path) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "run"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    asked = [file, "--out", out, "--edits", 2, "--editor", "grace", "--editor", "bare"]
    found = evaluate(*asked)
    assert found.exit_code == 0, found.output
    for words in ("after 2 edits", "edited prompts, exact", "paraphrases, exact", "100.0 %"):
        assert words in found.output
    results = json.loads((out / "results.json").read_text())["candidates"]
    assert set(results) == {"grace", "bare"}
    assert [step["edits"] for step in results["grace"]] == [1, 2]
    assert results["grace"][-1]["exact"] == {"share": 1.0, "right": 2, "asked": 2}
    assert results["bare"][-1]["exact"]["share"] == 0.0
    assert results["grace"][-1]["locality"]["unrelated"]["share"] == 1.0
    assert "| edited prompts, exact |" in (out / "results.md").read_text()
    picture = (out / "curves.svg").read_bytes()
    assert picture.startswith(b"<?xml")
    again = evaluate(*asked)
    assert again.exit_code == 0, again.output
    assert json.loads((out / "results.json").read_text())["candidates"] == results
    assert (out / "curves.svg").read_bytes() == picture
    other = evaluate(file, "--out", out, "--edits", 2, "--seed", 1)
    assert other.exit_code == 1
    assert "had other options: seed" in other.output


def test_what_cannot_be_evaluated_is_said(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text('{"prompt": "x"}')
    wrong = ((("--editor", "grce"), "no editor 'grce'"), ((), "Row 1"), (("--where", "x"), "FIELD=VALUE"))
    for at, (more, said) in enumerate(wrong):
        found = evaluate(file, "--out", tmp_path / f"run{at}", *more)
        assert found.exit_code == 1
        assert said in " ".join(found.output.replace("│", " ").split())
