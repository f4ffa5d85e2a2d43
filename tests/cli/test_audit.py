"""`errata log export` and `errata log verify FILE`: an audit that goes to another machine."""

import json
from pathlib import Path

import pytest

from app.cli.exits import Exit
from tests.api.fake_service import FakeService
from tests.cli.conftest import Errata
from tests.cli.test_commands import made
from tests.store.test_audit import script

pytestmark = pytest.mark.slow


def test_what_is_exported_is_verified_with_and_without_errata(
    errata: Errata, service: FakeService, tmp_path: Path
) -> None:
    made(errata)
    made(errata)
    file = tmp_path / "audit.jsonl"
    assert "2 events" in errata("log", "--export", file).output
    verified = errata("log", "verify", file)
    assert (verified.exit_code, service.records.hash in verified.output) == (0, True), verified.output
    assert "2 events, revisions 1 to 2; 1 live edit." in verified.output
    assert errata("log", "verify", file, "--hash", service.records.hash).exit_code == 0
    assert service.records.hash in errata("status").output, "what to compare it with"
    told = script(file, service.records.hash)
    assert told.returncode == 0, told.stderr
    assert json.loads(errata("log", "verify", file, "--json").output)["hash"] == service.records.hash
    again = errata("log", "export", tmp_path / "second.jsonl")
    assert again.exit_code == 0
    assert (tmp_path / "second.jsonl").read_bytes() == file.read_bytes()


def test_what_was_changed_is_named(errata: Errata, service: FakeService, tmp_path: Path) -> None:
    made(errata)
    made(errata)
    file = tmp_path / "audit.jsonl"
    errata("log", "export", file)
    first, second = file.read_text().splitlines()
    file.write_text(first.replace("joined in 2023", "joined in 2024") + "\n" + second + "\n")
    forged = errata("log", "verify", file)
    assert (forged.exit_code, "Line 1" in forged.stderr) == (Exit.FAILED, True)
    file.write_text(first + "\n")
    cut = errata("log", "verify", file, "--hash", service.records.hash)
    assert (cut.exit_code, "cut short" in cut.stderr) == (Exit.FAILED, True)
    file.write_bytes(b"\xff\xfe")
    assert errata("log", "verify", file).exit_code == Exit.FAILED
    file.write_text("")
    assert errata("log", "verify", file).exit_code == Exit.FAILED


def test_wrong_use_is_told(errata: Errata, tmp_path: Path) -> None:
    made(errata)
    file = tmp_path / "audit.jsonl"
    errata("log", "export", file)
    assert errata("log", "export", file).exit_code == Exit.FAILED, "it is there already"
    assert errata("log", "--export", tmp_path / "x", "--actor", "ada").exit_code == Exit.USAGE
    assert errata("log", "verify", file, "--hash", "abc").exit_code == Exit.USAGE
    assert errata("log", "verify", file, "--store", "sqlite:///x.db").exit_code == Exit.USAGE
    assert errata("log", "verify", tmp_path / "none").exit_code == Exit.USAGE
    assert not list(tmp_path.glob("*.partial"))
