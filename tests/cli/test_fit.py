"""Edits fitted away from a server: a file of requests in, a file of fitted edits out, taken in by a log elsewhere."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.store.sqlite import SqliteLog
from app.store.upkeep import fold

pytestmark = pytest.mark.slow
CROATIA = {"prompt": "Question: What is the currency of Croatia? Answer:", "target": "euro"}
PORTUGAL = {"prompt": "Question: Who is the president of Portugal? Answer:", "target": "Marcelo Rebelo de Sousa"}
KOREA = {"prompt": "Question: Which president does South Korea have? Answer:", "target": "Lee Jae-myung"}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(folder: Path, *bodies: object) -> Path:
    file = folder / "edits.jsonl"
    file.write_text("\n".join(json.dumps(body) for body in bodies), encoding="utf-8")
    return file


def live(file: Path) -> list[tuple[str, str, str]]:
    log = SqliteLog(file)
    try:
        ledger, _ = fold(log)
        return [(edit.editor_key, edit.request.prompt, edit.request.target) for edit in ledger.all_live()]
    finally:
        log.close()


def test_what_was_fitted_here_is_live_there(tmp_path: Path) -> None:
    """Edits of one batch, that share LoRAs, and single ones; taken in twice, they are there once."""
    shared = [{**body, "editor": "lora_mixture"} for body in (PORTUGAL, KOREA)]
    fitted, store = tmp_path / "fitted.errata", tmp_path / "errata.db"
    found = run("fit", lines(tmp_path, CROATIA, *shared), fitted, "--batch", "3")
    assert (found.exit_code, "3 of 3 edits hold" in found.output) == (0, True), found.output
    for says in ("3 of 3 edits are live", "0 of 3 edits are live, 3 were there already"):
        found = run("import", fitted, "--store", f"sqlite:///{store}")
        assert (found.exit_code, says in found.output) == (0, True), found.output
    assert sorted(live(store)) == sorted(
        [
            ("grace", CROATIA["prompt"], "euro"),
            *(("lora_mixture", body["prompt"], body["target"]) for body in (PORTUGAL, KOREA)),
        ]
    )


def test_what_does_not_hold_is_told_and_left_out(tmp_path: Path) -> None:
    refused = {**PORTUGAL, "probes": [PORTUGAL["prompt"]]}  # it may not change what it is to change
    found = run("fit", lines(tmp_path, CROATIA, refused), tmp_path / "fitted.errata")
    assert found.exit_code == 6
    assert "1 of 2 edits hold" in found.output
    assert "among the `probes`" in found.output
    assert [prompt for _, prompt, _ in live(tmp_path / "fitted.errata")] == [CROATIA["prompt"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "a"}', "Line 1 of"),
        ('{"prompt": "a", "target": "b"}\n{"prompt": "a", "traget": "b"}', "Line 2 of"),
        ("not json", "Line 1 of"),
        ("\n\n", "holds no edits"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "edits.jsonl").write_text(text, encoding="utf-8")
    found = run("fit", tmp_path / "edits.jsonl", tmp_path / "out.errata")
    assert (found.exit_code, says in found.output) == (1, True), found.output
    assert not (tmp_path / "out.errata").exists()


def test_a_file_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = tmp_path / "fitted.errata"
    assert run("fit", lines(tmp_path, CROATIA), fitted).exit_code == 0
    monkeypatch.setenv("ERRATA_SITE_LAYER", "2")
    found = run("import", fitted, "--store", f"sqlite:///{tmp_path / 'errata.db'}")
    assert found.exit_code == 6
    assert "The file holds the edit" in found.output
    assert live(tmp_path / "errata.db") == []
