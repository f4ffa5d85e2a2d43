"""`errata keys` on a log of its own, and serving beyond loopback."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app
from app.domain.keys import key_of
from app.service.records import Records
from app.store.open import open_log


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/errata.db"


def keys(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments, "--store", url], env={"COLUMNS": "200", "ERRATA_ACTOR": "root"})


def known(url: str) -> Records:
    log = open_log(url)
    records = Records(log)
    records.fold_all()
    log.close()
    return records


def test_a_key_is_shown_once_and_kept_as_a_hash(url: str) -> None:
    result = keys(url, "create", "--role", "editor", "--name", "ci")
    assert result.exit_code == 0, result.output
    text = result.stdout.strip()
    key = key_of(text, known(url).ledger.keys)
    assert key is not None
    assert (key.role, key.name) == ("editor", "ci")
    assert text.encode() not in Path(url.removeprefix("sqlite:///")).read_bytes()
    listed = keys(url, "list").output
    assert all(word in listed for word in (key.id, "editor", "ci"))
    assert text not in listed


def test_revoking(url: str) -> None:
    text = keys(url, "create", "--role", "admin", "--name", "ann").stdout.strip()
    key_id = text.split("_")[1]
    assert "is revoked" in keys(url, "revoke", key_id).output
    assert key_of(text, known(url).ledger.keys) is None
    again = keys(url, "revoke", key_id)
    assert again.exit_code == 6
    assert "revoked already" in again.stderr
    assert "errata keys list" in keys(url, "revoke", "nothing").stderr
    assert known(url).revision == 2


def test_wrong_use(url: str) -> None:
    assert keys(url, "create", "--role", "king", "--name", "x").exit_code == 2
    open_log(url).close()
    assert "No keys." in keys(url, "list").output
    assert "keeps nothing" in keys("memory://", "create", "--role", "admin", "--name", "x").stderr


@pytest.mark.slow
def test_beyond_loopback_a_key_is_needed(url: str) -> None:
    result = CliRunner().invoke(
        app, ["serve", "--host", "0.0.0.0", "--port", "0", "--store", url], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 1
    assert "errata keys create" in result.stderr


def test_keys_as_json_and_by_the_beginning_of_their_id(url: str) -> None:
    made = json.loads(keys(url, "create", "--role", "editor", "--name", "ci", "--json").stdout)
    assert key_of(made["key"], known(url).ledger.keys) is not None
    (listed,) = json.loads(keys(url, "list", "--json").stdout)
    assert (listed["id"], listed["name"], listed["revoked_at"]) == (made["id"], "ci", None)
    assert made["key"] not in str(listed)
    assert json.loads(keys(url, "revoke", made["id"][:4], "--json").stdout)["revoked_at"] is not None


def test_a_first_key_that_is_no_admins_says_what_is_locked(url: str) -> None:
    told = keys(url, "create", "--role", "reader", "--name", "dashboard")
    assert (told.exit_code, "errata keys create --role admin" in told.stderr) == (0, True)
    assert all(word in told.stderr for word in ("no key may", "ask the model", "edit switch"))
    assert "look at edits" not in told.stderr
    assert len(told.stdout.split()) == 1, "the key alone, for scripts"
    text = keys(url, "create", "--role", "admin", "--name", "ann")
    assert "no key may" not in text.stderr
    assert "no key may" in keys(url, "revoke", text.stdout.strip().split("_")[1]).stderr


def test_names_of_keys_are_unique_for_ever(url: str) -> None:
    key_id = keys(url, "create", "--role", "admin", "--name", "ci").stdout.strip().split("_")[1]
    keys(url, "revoke", key_id)
    again = keys(url, "create", "--role", "admin", "--name", "CI")
    assert (again.exit_code, "CI-2" in again.stderr) == (6, True)
    assert keys(url, "create", "--role", "admin", "--name", "ci (as ann)").exit_code == 1
    assert keys(url, "create", "--role", "admin", "--name", " ").exit_code == 1
    assert known(url).revision == 2
