"""`errata eval` as a user runs it: a file of edits in, figures, tables and a picture out; again, and it goes on."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app

pytestmark = pytest.mark.slow
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
    tables = (out / "results.md").read_text()
    assert "| edited prompts, exact |" in tables
    assert "No row is held out" not in found.output + tables
    picture = (out / "curves.svg").read_bytes()
    assert picture.startswith(b"<?xml")
    again = evaluate(*asked)
    assert again.exit_code == 0, again.output
    assert json.loads((out / "results.json").read_text())["candidates"] == results
    assert (out / "curves.svg").read_bytes() == picture
    other = evaluate(file, "--out", out, "--edits", 2, "--seed", 1, "--ask", 5)
    assert other.exit_code == 1
    assert "had other options: seed, ask" in other.output
    file.write_text("\n".join(map(json.dumps, [{**ROWS[0], "target": "kuna"}, *ROWS[1:]])))
    changed = evaluate(*asked)
    assert changed.exit_code == 1
    assert "had other options: contents" in changed.output


def said(found: Result) -> str:
    """The text on one line, without the box around it."""
    return " ".join(found.output.replace("│", " ").split())


def test_what_cannot_be_evaluated_is_said_and_claims_no_folder(tmp_path: Path) -> None:
    file, good, empty = tmp_path / "edits.jsonl", tmp_path / "good.jsonl", tmp_path / "empty.txt"
    file.write_text('{"prompt": "x"}')
    good.write_text("\n".join(map(json.dumps, ROWS)))
    empty.write_text("too short\n")
    wrong = (
        ((file, "--editor", "grce"), "no editor 'grce'"),
        ((file,), "Row 1"),
        ((file, "--where", "x"), "FIELD=VALUE"),
        ((good, "--template", "Question:"), "has no {}"),
        ((good, "--text", empty), "holds no text"),
        ((good, "--model", tmp_path / "nowhere"), "nowhere"),
    )
    for at, (arguments, words) in enumerate(wrong):
        out = tmp_path / f"run{at}"
        found = evaluate(*arguments, "--out", out)
        assert found.exit_code == 1
        assert words in said(found)
        assert not (out / "options.json").exists()


@pytest.mark.parametrize("out", ["edits.jsonl/sub", "/proc/errata"])
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, out: str) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    found = evaluate(file, "--out", tmp_path / out)
    assert found.exit_code == 1
    assert "cannot be written" in said(found)
    assert "Traceback" not in found.output


def test_where_no_row_is_held_out_it_is_said(tmp_path: Path) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "run"
    file.write_text(json.dumps(ROWS[0]))
    found = evaluate(file, "--out", out, "--editor", "bare")
    assert found.exit_code == 0, found.output
    assert "No row is held out" in said(found)
    assert "No row is held out" in (out / "results.md").read_text()
    last = json.loads((out / "results.json").read_text())["candidates"]["bare"][-1]
    assert last["TRR"] == {"share": 1.0, "right": 300, "asked": 300}


def test_papers_figures_come_without_a_picture_and_within_a_time(tmp_path: Path) -> None:
    file, out = tmp_path / "edits.jsonl", tmp_path / "run"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    found = evaluate(file, "--out", out, "--papers", "--editor", "bare", "--minutes", 10)
    assert found.exit_code == 0, found.output
    assert "prompts told apart from the edits, token match" in said(found)
    assert "No row is held out" not in found.output
    results = json.loads((out / "results.json").read_text())
    assert results["papers"] is True
    (last,) = results["candidates"]["bare"]
    assert (last["edits"], last["asked"], last["locality_token_match"]) == (3, 3, 1.0)
    assert "| edited prompts, token match (teacher-forced) |" in (out / "results.md").read_text()
    assert not (out / "curves.svg").exists()
    other = evaluate(file, "--out", out, "--editor", "bare")
    assert other.exit_code == 1
    assert "had other options: papers" in other.output
