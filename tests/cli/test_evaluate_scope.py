"""`errata eval` on cases that ask which questions an edit reaches, as a user runs it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_evaluate import evaluate, said

FRAME = "Question: {} Answer:"
PAIR = {
    "kind": "other_subject",
    "prompt": "What is the capital of Peru?",
    "target": "Cusco",
    "same": ["Which city is the capital of Peru?"],
    "other": ["What is the capital of Chile?"],
    "half": "settle",
}
TURN = {"role": "user", "content": "How old is she?"}
CONVERSATION = {
    "messages": [TURN, {"role": "assistant", "content": "Who?"}, TURN],
    "target": "x",
    "right": [],
    "wrong": [],
}
UTTERANCES = [{"intent": f"intent_{at % 3}", "text": f"What about number {at}?"} for at in range(12)]


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command logs to the runner's own stream, which is closed after it."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


def written(file: Path, *rows: object) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.slow
def test_pairs_are_told_by_their_fields_and_a_run_goes_on(tmp_path: Path) -> None:
    file, out = written(tmp_path / "pairs.jsonl", PAIR), tmp_path / "run"
    asked = (file, "--out", out, "--editor", "grace", "--template", FRAME)
    found = evaluate(*asked)
    assert found.exit_code == 0, found.output
    assert "rephrasings, answered with the target" in said(found)
    results = json.loads((out / "results.json").read_text())
    assert results["kind"] == "pairs"
    (alone,) = results["candidates"]["grace"]
    assert (alone["trial"], alone["asked"]) == ("alone", 3)
    assert alone["shares"]["edited/exact"]["all"] == {"share": 1.0, "right": 1, "asked": 1}
    assert "| adjacent questions, answered with the target: other_subject |" in (out / "results.md").read_text()
    again = evaluate(*asked)
    assert again.exit_code == 0, again.output
    assert json.loads((out / "results.json").read_text()) == results
    other = evaluate(*asked, "--decisions")
    assert other.exit_code == 1
    assert "had other options: decisions" in said(other)


@pytest.mark.slow
def test_support_has_a_trial_for_each_number_of_known_utterances(tmp_path: Path) -> None:
    file, out = written(tmp_path / "support.jsonl", *UTTERANCES), tmp_path / "run"
    options = ("--edits", 1, "--known", 1, "--known", 2, "--ask", 2, "--traffic", 3, "--decisions")
    found = evaluate(file, "--out", out, "--editor", "grace", *options)
    assert found.exit_code == 0, found.output
    results = json.loads((out / "results.json").read_text())
    assert [(each["trial"], each["asked"]) for each in results["candidates"]["grace"]] == [
        ("1 known", 5),
        ("2 known", 5),
    ]
    assert "other utterances, an edit answers" in (out / "results.md").read_text()


def test_what_cannot_be_evaluated_is_said_and_claims_no_folder(tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.jsonl", PAIR)
    support = written(tmp_path / "support.jsonl", *UTTERANCES)
    conversations = written(tmp_path / "conversations.jsonl", CONVERSATION)
    edits = written(tmp_path / "edits.jsonl", {"prompt": "What is it?", "target": "It"})
    wrong = (
        ((), "Name a file of cases"),
        (("--kind", "support"), "Name a file of cases"),
        ((pairs, support), "cases of several kinds"),
        ((pairs, "--kind", "support"), "cannot be read as support"),
        ((pairs, "--papers"), "no use for --papers"),
        ((pairs, "--traffic", 5), "no use for --traffic"),
        ((edits, "--traffic-from", "all"), "no use for --traffic-from"),
        ((edits, "--decisions"), "no use for --decisions"),
        ((pairs, "--editor", "bare"), "no editor 'bare' for cases of this kind"),
        ((pairs, "--template", "Question:"), "has no {}"),
        ((pairs, "--half", "report"), "No row of the files is left"),
        ((support, "--edits", 4), "have 0 intents with more than 10 utterances"),
        ((conversations, "--model", tmp_path / "nowhere"), "nowhere"),
    )
    for at, (arguments, words) in enumerate(wrong):
        out = tmp_path / f"run{at}"
        found = evaluate(*arguments, "--out", out)
        assert found.exit_code == 1, found.output
        assert words in said(found)
        assert not (out / "options.json").exists()


def test_conversations_need_a_chat_template(tmp_path: Path) -> None:
    file = written(tmp_path / "conversations.jsonl", CONVERSATION)
    found = evaluate(file, "--out", tmp_path / "run")
    assert found.exit_code == 1
    assert "the model has no chat template to render them with: name a chat model with --model" in said(found)
    assert not (tmp_path / "run" / "options.json").exists()
