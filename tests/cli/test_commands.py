"""The commands that talk to a server: what they send, what they show, how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.edit import duration_s
from app.cli.exits import Exit
from app.cli.main import app
from app.domain.errors import QueueFull
from tests.api.fake_service import REJECTED, FakeService
from tests.cli.conftest import Errata

ASKED = "What is the currency of Croatia?"


def made(errata: Errata, *more: object) -> str:
    """The id of a new edit."""
    result = errata("edit", ASKED, "euro", "--reason", "joined in 2023", *more)
    assert result.exit_code == 0, result.output
    word = next(word for word in result.output.split() if word.startswith("ed_"))
    return word.strip()


def test_no_command_line_needs_torch_to_start() -> None:
    code = "import sys, app.cli.main; print([m for m in ('torch', 'transformers', 'fastapi') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_story_of_an_edit(errata: Errata, service: FakeService) -> None:
    assert errata("generate", ASKED).output == "base answer here\n"
    edit_id = made(errata)
    assert service.origins[-1].actor == "ada"
    assert errata("generate", ASKED).output == "euro\n"
    assert errata("generate", ASKED, "--no-edits").output == "base answer here\n"
    detailed = errata("generate", ASKED, "--details").output
    assert edit_id in detailed
    assert "nearest to its prompt" in detailed
    listed = errata("edits").output
    assert all(word in listed for word in (edit_id, "live", ASKED, "euro", "ada"))
    shown = errata("edits", edit_id).output
    assert "joined in 2023" in shown
    assert "edit committed" in shown
    back = errata("rollback", edit_id, "--reason", "only a test")
    assert f"{edit_id} is rolled_back" in back.output
    assert "revision 2" in back.output
    assert errata("generate", ASKED).output == "base answer here\n"
    assert "only a test" in errata("log").output


def test_an_edit_is_retuned(errata: Errata, service: FakeService) -> None:
    edit_id = made(errata)
    told = errata("retune", edit_id, "--widen", "1.2", "--paraphrase", "Croatia pays in", "--reason", "missed")
    assert told.exit_code == 0, told.output
    assert f"{edit_id} is live" in told.output
    assert "revision 2" in told.output
    assert service.edit_view(edit_id).edit.request.paraphrases == ("Croatia pays in",)
    assert "missed" in errata("log").output
    assert "There is nothing to change" in errata("retune", edit_id).output


def test_probes_are_set_from_a_file_and_shown(errata: Errata, tmp_path: Path) -> None:
    file = tmp_path / "probes.txt"
    file.write_text("The capital of Peru is\n\nWho are you?\n")
    assert "2 probes of the namespace support, revision 1" in errata("probes", file, "--namespace", "support").output
    shown = errata("probes", "--namespace", "support").output
    assert "The capital of Peru is\nWho are you?\n" in shown
    assert json.loads(errata("probes", "--json").output)["prompts"] == []
    assert "probes set" in errata("log").output


def test_disable_enable_and_the_switch(errata: Errata) -> None:
    edit_id = made(errata)
    assert "disabled" in errata("disable", edit_id).output
    assert errata("generate", ASKED).output == "base answer here\n"
    assert "live" in errata("enable", edit_id).output
    assert "switched off" in errata("switch", "off", "--yes").output
    assert errata("generate", ASKED).output == "base answer here\n"
    assert "switched on" in errata("switch", "on", "--yes").output
    assert errata("generate", ASKED).output == "euro\n"


def test_rolling_back_to_a_revision(errata: Errata) -> None:
    first = made(errata)
    errata("edit", "Who wrote Emma?", "Jane Austen")
    assert "revision 3" in errata("rollback", "--yes", "--to-revision", 1).output
    assert [e["id"] for e in json.loads(errata("edits", "--state", "live", "--json").output)] == [first]
    assert "Nothing to take back" in errata("rollback", "--yes", "--to-revision", 3).output


def test_what_is_for_programs_is_json(errata: Errata) -> None:
    edit_id = made(errata)
    assert [e["id"] for e in json.loads(errata("edits", "--json").output)] == [edit_id]
    assert json.loads(errata("edits", edit_id, "--json").output)["history"][0]["kind"] == "edit_committed"
    assert [json.loads(row)["revision"] for row in errata("log", "--json").output.splitlines()] == [1]


def test_a_stream_is_shown_as_it_comes(errata: Errata) -> None:
    made(errata)
    result = errata("generate", ASKED, "--stream", "--details")
    assert result.output.startswith("euro\n")
    assert "answered by" in result.output


def test_a_preview_says_that_nothing_was_committed(errata: Errata, service: FakeService) -> None:
    assert "nothing was committed" in errata("edit", ASKED, "euro", "--dry-run").output
    tried = json.loads(errata("edit", ASKED, "euro", "--dry-run", "--widen", "1.5", "--json").output)
    assert tried["widen"] == 1.5
    assert service.revision == 0
    assert errata("edits").output == "No edits.\n"
    assert errata("log").output == "No events.\n"


def test_long_lists_are_read_page_by_page(errata: Errata) -> None:
    for n in range(3):
        errata("edit", f"prompt {n}", "x")
    few = errata("edits", "--limit", 2).output
    assert "There are more than 2" in few
    assert "prompt 0" not in few
    assert errata("edits", "--limit", 3).stderr == ""
    cut = errata("log", "--limit", 2)
    assert "There are more than 2" in cut.stderr
    assert [row.split()[0] for row in cut.stdout.splitlines()[1:]] == ["3", "2"], "the newest come first"
    assert errata("log", "--limit", 3).stderr == ""


def test_the_audit_is_exported_to_a_file_that_was_not_there(errata: Errata, tmp_path: Path) -> None:
    made(errata)
    file = tmp_path / "audit.jsonl"
    assert "1 events" in errata("log", "export", file).output
    assert [json.loads(row)["kind"] for row in file.read_text().splitlines()] == ["edit_committed"]
    assert errata("log", "export", file).exit_code == 1
    assert errata("log", "export", tmp_path / "no" / "x").exit_code == 1


def test_what_a_server_refuses_is_shown_in_its_words(errata: Errata, service: FakeService) -> None:
    refused = errata("edit", ASKED, REJECTED)
    assert refused.exit_code == Exit.REFUSED
    assert "The edit did not hold when tried." in refused.stderr
    assert "report:" in refused.stderr
    unknown = errata("rollback", "ed_nothing")
    assert unknown.exit_code == Exit.UNKNOWN
    assert "`errata edits` lists them" in unknown.stderr
    service.fails = QueueFull("There are enough waiting.", retry_after_s=2)
    busy = errata("generate", ASKED, "--stream")
    assert busy.exit_code == Exit.BUSY
    assert "There are enough waiting." in busy.stderr


def test_other_peoples_text_cannot_steer_the_terminal(errata: Errata, service: FakeService) -> None:
    service.canned["hi"] = "\x1b[2Jgone"
    assert "\x1b" not in errata("generate", "hi").output


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "generate", "hi"])
    assert result.exit_code == Exit.UNREACHABLE
    assert "errata serve" in result.stderr
    result = CliRunner().invoke(app, ["--url", "nonsense", "generate", "hi"])
    assert result.exit_code == Exit.USAGE
    assert "not the address of a server" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["rollback"], ["rollback", "ed_1", "--to-revision", "1"], ["switch", "maybe"], ["edits", "--limit", "0"]],
)
def test_arguments_that_make_no_sense_are_usage_errors(errata: Errata, arguments: list[str]) -> None:
    assert errata(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("1.5s", 1.5)]
)
def test_times_are_read_with_their_units(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


def test_a_time_without_sense_is_a_usage_error(errata: Errata) -> None:
    assert errata("edit", ASKED, "euro", "--expires-in", "soon").exit_code == 2


def test_snapshots_are_taken_and_listed(errata: Errata) -> None:
    assert "No snapshots." in errata("snapshot", "list").output
    assert errata("snapshot").exit_code == Exit.USAGE
    errata("edit", "Who leads Lumen?", "Ada")
    assert "revision 1, 1 edits" in errata("snapshot").output
    assert "snapshot-000000000001-" in errata("snapshot", "list").output
