"""All commands share JSON, exit codes, tables that fit, shortened ids, version and completion."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from app.cli import render
from app.cli.exits import MEANINGS, Exit
from app.cli.main import app
from app.domain.errors import Forbidden, QueueFull
from app.version import version
from tests.api.fake_service import NEAREST, REJECTED, FakeService
from tests.cli.conftest import Errata
from tests.cli.test_commands import ASKED, made

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LONG = "Which of the many currencies that were ever in use between the Adriatic and the Danube is Croatia's today?"


def commands(command: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Each command that does something by itself, with its name."""
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield " ".join(names), command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *names, name)


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_takes_json(name: str) -> None:
    assert "--json" in {option for each in ALL[name].params for option in each.opts}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", ASKED],
        ["generate", ASKED, "--details"],
        ["edit", ASKED, "kuna", "--dry-run"],
        ["edit", ASKED, "kuna"],
        ["retune", "ed_0000", "--widen", "1.1"],
        ["edits"],
        ["edits", "ed_0000"],
        ["rollback", "ed_0000"],
        ["disable", "ed_0000"],
        ["switch", "off", "--yes"],
        ["switch"],
        ["namespaces"],
        ["probes"],
        ["why", ASKED],
        ["snapshot"],
        ["status"],
    ],
    ids=" ".join,
)
def test_json_is_all_there_is_on_standard_output(errata: Errata, arguments: list[str]) -> None:
    made(errata)
    done = errata(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)


def test_a_stream_as_json_is_an_event_a_line(errata: Errata) -> None:
    made(errata)
    lines = [json.loads(line) for line in errata("generate", ASKED, "--stream", "--json").stdout.splitlines()]
    assert lines[-1]["generated_text"] == "euro"
    assert all("token" in line for line in lines)


def test_what_goes_wrong_is_json_too(errata: Errata) -> None:
    refused = errata("edit", ASKED, REJECTED, "--json")
    problem = json.loads(refused.stderr)
    assert (problem["status"], problem["exit_code"], refused.exit_code) == (422, 6, 6)
    assert problem["report"] == {"exact": False}
    unknown = errata("edits", "ed_f", "--json")
    assert json.loads(unknown.stderr)["exit_code"] == unknown.exit_code == Exit.UNKNOWN
    assert refused.stdout == unknown.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("edit", ASKED), "Missing argument"),
        (("edits", "--limit", "many"), "--limit"),
        (("edits", "--no-such-option"), "--no-such-option"),
        (("nonsense",), "nonsense"),
        (("rollback",), "--to-revision"),
        (("log", "--since", "whenever"), "whenever"),
        (("keys", "nonsense"), "nonsense"),
    ],
)
def test_wrong_usage_is_json_too(errata: Errata, arguments: tuple[str, ...], says: str) -> None:
    wrong = errata(*arguments, "--json")
    told = json.loads(wrong.stderr)
    assert (told["title"], told["exit_code"], wrong.exit_code) == ("Wrong usage", 2, 2)
    assert says in told["detail"]
    assert wrong.stdout == ""
    assert errata(*arguments).stderr.startswith("Usage: "), "people are shown how it is used"


# -- exit codes


def test_exit_codes_tell_what_went_wrong(errata: Errata, service: FakeService) -> None:
    assert errata("edits", "ed_nothing").exit_code == Exit.UNKNOWN
    assert errata("edit", ASKED, REJECTED).exit_code == Exit.REFUSED
    assert errata("switch", "on", "--yes").exit_code == Exit.REFUSED, "it is on already"
    assert errata("edit", "", "x").exit_code == Exit.USAGE
    assert errata("edits", "--no-such-option").exit_code == Exit.USAGE
    service.fails = QueueFull("There are enough waiting.", retry_after_s=2)
    assert errata("generate", ASKED).exit_code == Exit.BUSY
    service.fails = Forbidden("Not with this key.")
    assert errata("edit", ASKED, "x").exit_code == Exit.NOT_ALLOWED
    service.fails = RuntimeError("a fault of the server's")  # type: ignore[assignment]
    assert errata("edit", ASKED, "x").exit_code == Exit.FAILED
    assert CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "edits"]).exit_code == Exit.UNREACHABLE


def test_exit_codes_are_documented() -> None:
    guide = (ROOT / "app/docs/operation.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in guide
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "900", "TERM": "dumb"}).output
    assert all(f"{int(code)} {meaning}" in shown for code, meaning in MEANINGS.items())


def test_an_error_is_one_line(errata: Errata) -> None:
    assert errata("edits", "ed_nothing").stderr.count("\n") == 1
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "edits"], env={"COLUMNS": "40"})
    assert result.stderr == (
        "Error: No server answers at http://127.0.0.1:9. Start one with `errata serve`, or name another with --url or "
        "ERRATA_URL.\n"
    )


def test_an_error_leads_to_the_documentation_of_the_server(errata: Errata, service: FakeService) -> None:
    service.fails = QueueFull("Enough wait. See /help/troubleshooting#too-busy.", retry_after_s=1)
    told = errata("generate", ASKED).stderr
    assert re.search(r" See http://127\.0\.0\.1:\d+/help/troubleshooting#too-busy\.", told)


@pytest.mark.parametrize(
    ("decision", "heading"), [((NEAREST, None), "too-wide"), ((None, NEAREST), "too-narrow")], ids=["hit", "miss"]
)
def test_why_leads_to_what_to_do_about_it(
    errata: Errata, service: FakeService, monkeypatch: pytest.MonkeyPatch, decision: Any, heading: str
) -> None:
    async def scope_of(prompts: list[str], namespace: str) -> list[Any]:
        return [decision]

    monkeypatch.setattr(service, "scope_of", scope_of)
    shown = errata("why", ASKED).stdout
    assert re.search(rf"If that is wrong, see http://127\.0\.0\.1:\d+/help/scope#{heading}\n", shown)


# -- tables


def lines(errata: Errata, width: int, *arguments: str) -> list[str]:
    return errata(*arguments, COLUMNS=str(width)).stdout.splitlines()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (260, "ID STATE PROMPT TARGET HITS BY CREATED (UTC)"),
        (80, "ID STATE PROMPT TARGET HITS BY"),
        (58, "ID STATE PROMPT TARGET HITS"),
        (50, "ID PROMPT TARGET"),
    ],
)
def test_a_table_keeps_ids_whole_and_drops_what_matters_least(
    width: int, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = {
        "id": "ed_0123456789abcdef", "state": "live", "prompt": LONG, "target": "the euro, since January 2023",
        "hits": 12, "actor": "ada@example.com", "created_at": "2026-11-29T10:11:12Z",
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(width))
    render.edit_table([edit, edit | {"prompt": "short", "target": "x"}])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == columns.split()
    assert all(len(row) <= width and row.startswith("ed_0123456789abcdef  ") for row in rows)
    assert ("…" in rows[0]) == (width < 260)
    assert "short" in rows[1]


def test_a_table_of_the_log_keeps_what_happened(errata: Errata) -> None:
    edit_id = made(errata)
    for width, columns in ((80, "REVISION WHEN (UTC) EVENT BY WHAT"), (50, "REVISION EVENT WHAT")):
        heading, *rows = lines(errata, width, "log")
        assert heading.split() == columns.split()
        assert all(len(line) <= width for line in rows)
        assert any(edit_id in line for line in rows)


def test_in_a_pipe_nothing_is_cut(errata: Errata) -> None:
    errata("edit", LONG, "euro")
    assert LONG in errata("edits", COLUMNS=None).stdout


# -- ids


def test_ids_may_be_shortened_to_a_unique_beginning(errata: Errata, service: FakeService) -> None:
    first = made(errata)
    for n in range(11):
        errata("edit", f"prompt {n}", "x")
    last = f"ed_{11:04}"
    assert json.loads(errata("edits", "ed_0011", "--json").stdout)["id"] == last
    assert json.loads(errata("edits", "0011", "--json").stdout)["id"] == last
    assert json.loads(errata("edits", "001", "--json").stderr)["exit_code"] == Exit.UNKNOWN
    several = errata("edits", "ed_00")
    assert several.exit_code == Exit.UNKNOWN
    assert "More than one edit's id begins with 'ed_00'" in several.stderr
    assert "..." in several.stderr
    assert f"{first} is disabled" in errata("disable", "0000").stdout
    assert f"{first} is live" in errata("enable", "0000").stdout
    assert "is live" in errata("retune", "0000", "--widen", "1.1").stdout
    assert f"{first} is rolled_back" in errata("rollback", "0000").stdout
    assert errata("edit", "another", "x", "--supersede", "0011").exit_code == 0
    assert service.edit_view(last).state == "superseded"


def test_of_several_ids_none_is_touched_where_one_is_wrong(errata: Errata, service: FakeService) -> None:
    edit_id = made(errata)
    assert errata("disable", edit_id, "ed_nothing").exit_code == Exit.UNKNOWN
    assert service.edit_view(edit_id).state == "live"


# -- status, version, completion


def test_status(errata: Errata, service: FakeService) -> None:
    shown = errata("status")
    assert shown.exit_code == 0
    for word in ("ready", "fake on cpu", "0 live, revision 0", "NOT durable", version()):
        assert word in shown.stdout
    service.why_not = "rebuilding"
    waiting = errata("status")
    assert waiting.exit_code == Exit.BUSY
    assert "not ready: rebuilding" in waiting.stdout


def test_the_version(errata: Errata) -> None:
    assert errata("--version").stdout == f"errata {version()}\n"
    assert version()[0].isdigit()


def test_the_shell_completes_commands() -> None:
    environment = os.environ | {
        "_ERRATA_COMPLETE": "complete_bash", "COMP_WORDS": "errata sta", "COMP_CWORD": "1", "COLUMNS": "200",
    }  # fmt: skip
    program = "import sys; sys.argv[0] = 'errata'; from app.cli.main import app; app()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["status"]
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], env={"TERM": "dumb"}).output


COMPLETES = {"_ERRATA_COMPLETE": "complete_bash", "COMP_WORDS": "errata sta", "COMP_CWORD": "1"}


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--version"], {}, "errata "),
        (["--help"], {}, "Usage"),
        (["serve", "--help"], {}, "--stop-grace-s"),
        ([], COMPLETES, "status"),
    ],
    ids=["version", "help", "help of serve", "completion"],
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str], environment: dict[str, str], says: str) -> None:
    """Nor what else takes its time: a command would take seconds to say its name."""
    program = """
import atexit, sys

heavy = {"torch", "transformers", "numpy", "redis", "uvicorn", "fastapi", "structlog"}
atexit.register(lambda: sys.stderr.write(" ".join(sorted(heavy & set(sys.modules)))))
sys.argv[0] = "errata"
from app.__main__ import main

main()
"""
    command = [sys.executable, "-c", program, *arguments]
    given = os.environ | {"COLUMNS": "200", "TERM": "dumb", **environment}
    done = subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert says in done.stdout
    assert done.stderr == ""
