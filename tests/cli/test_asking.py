"""A command that rolls back many edits asks first; switches and namespaces can be read."""

import json
import os
import pty
import subprocess
import sys

import pytest

from app.cli.exits import Exit
from tests.api.fake_service import FakeService
from tests.api.serving import live_server
from tests.cli.conftest import Errata
from tests.cli.test_commands import ASKED, made
from tests.server import PATIENCE_S

pytestmark = pytest.mark.slow


def at_a_terminal(url: str, answer: str, *arguments: str) -> tuple[int, str]:
    """A command whose standard input is a terminal, where somebody types an answer: its exit code and output."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ERRATA_URL": url, "TERM": "dumb", "COLUMNS": "200"}
    command = [sys.executable, "-m", "app", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        output = process.communicate(timeout=PATIENCE_S)[0].decode()
    os.close(ours)
    return process.returncode, output


def test_going_back_asks_and_shows_what_it_would_do(service: FakeService) -> None:
    with live_server(service) as url:
        command = [sys.executable, "-m", "app", "edit", ASKED, "euro"]
        environment = {**os.environ, "ERRATA_URL": url, "TERM": "dumb"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        code, output = at_a_terminal(url, "n", "rollback", "--to-revision", "0")
        assert (code, service.revision) == (1, 1)
        assert all(
            word in output for word in ("ed_0000 would be taken back", "Take back 1 edits of the namespace default?")
        )
        code, output = at_a_terminal(url, "y", "rollback", "--to-revision", "0")
        assert (code, service.revision) == (0, 2), output
        code, output = at_a_terminal(url, "n", "switch", "off")
        assert (code, service.revision) == (1, 2), output


def test_where_nobody_can_be_asked_yes_has_to_say_so(errata: Errata, service: FakeService) -> None:
    made(errata)
    for arguments in (("rollback", "--to-revision", 0), ("switch", "off")):
        refused = errata(*arguments)
        assert (refused.exit_code, "--yes" in refused.stderr) == (Exit.USAGE, True)
    assert service.revision == 1
    assert errata("rollback", "--to-revision", 0, "--yes").exit_code == 0


def test_a_dry_run_shows_and_does_nothing(errata: Errata, service: FakeService) -> None:
    first = made(errata)
    second = made(errata, "--supersede", first)
    shown = errata("rollback", second, "--dry-run").output
    assert f"{second} would be taken back" in shown
    assert f"{first} would answer again" in shown
    assert "1 live edits of all namespaces would be switched off" in errata("switch", "off", "--dry-run").output
    assert json.loads(errata("rollback", "--to-revision", 1, "--dry-run", "--json").output)["dry_run"] is True
    assert service.revision == 2
    back = errata("rollback", second).output
    assert f"{first} answers again" in back


def test_it_stays_in_its_namespace(errata: Errata, service: FakeService) -> None:
    made(errata)
    errata("edit", ASKED, "kuna", "--namespace", "support")
    errata("rollback", "--to-revision", 0, "--yes", "--namespace", "support")
    assert [edit.request.namespace for edit in service.records.ledger.all_live()] == ["default"]
    assert errata("rollback", "--to-revision", 0, "--yes", "--all-namespaces").exit_code == 0
    assert service.records.ledger.live_count() == 0
    assert errata("rollback", "ed_0", "--namespace", "x").exit_code == Exit.USAGE


def test_switches_and_namespaces_are_shown(errata: Errata) -> None:
    made(errata)
    errata("switch", "off", "--namespace", "default", "--yes", "--reason", "incident 12")
    shown = errata("switch").output
    assert all(word in shown for word in ("default", "OFF", "ada", "incident 12"))
    assert json.loads(errata("switch", "--json").output)["off"] == ["default"]
    assert "SWITCHED OFF" in errata("namespaces").output
    assert "SWITCHED OFF in default" in errata("status").output
    refused = errata("switch", "off", "--namespace", "defualt", "--yes")
    assert (refused.exit_code, "Did you mean 'default'?" in refused.stderr) == (Exit.UNKNOWN, True)


def test_edits_that_never_answered_or_end_soon_are_listed(errata: Errata) -> None:
    made(errata)
    errata("edit", "other", "x", "--expires-in", "1h")
    errata("generate", ASKED)
    assert [e["id"] for e in json.loads(errata("edits", "--never-hit", "--json").output)] == ["ed_0001"]
    assert [e["id"] for e in json.loads(errata("edits", "--expires-within", "2h", "--json").output)] == ["ed_0001"]
    assert json.loads(errata("edits", "--expires-within", "2m", "--json").output) == []


def test_somebody_elses_edit_is_replaced_by_who_has_read_it(errata: Errata) -> None:
    made(errata)
    assert errata("edit", ASKED, "kuna", ERRATA_ACTOR="bob").exit_code == Exit.REFUSED
    assert errata("edit", ASKED, "kuna", "--read", 1, ERRATA_ACTOR="bob").exit_code == 0
    assert errata("edit", ASKED, "lira", "--read", 1, ERRATA_ACTOR="cat").exit_code == Exit.REFUSED


def test_a_log_is_adopted_by_who_says_so(errata: Errata, service: FakeService) -> None:
    service.records.holds["history"] = "the log that was applied here is gone (errata log adopt --revision 0)"
    told = errata("status")
    assert (told.exit_code, "errata log adopt" in told.output) == (Exit.BUSY, True)
    assert errata("log", "adopt", "--revision", 0).exit_code == Exit.USAGE, "nobody was asked"
    assert "adopted, at revision 0" in errata("log", "adopt", "--revision", 0, "--yes").output
    assert errata("status").exit_code == 0
