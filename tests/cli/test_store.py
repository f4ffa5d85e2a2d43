"""`errata store` on real logs: checked, copied between stores, damaged, carried in a file."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app
from app.domain.snapshot import records_of
from app.store import upkeep
from app.store.codec import GENESIS
from app.store.open import open_log
from app.store.snapshots import save
from tests.domain.samples import committed, rolled_back
from tests.redis_server import RedisServer, running_redis


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A log of three events."""
    url = f"sqlite:///{tmp_path}/errata.db"
    log = open_log(url)
    for event in (committed(1, "a", tensors=bytes(300)), committed(2, "b"), rolled_back(3, "a")):
        log.append(event)
    log.close()
    return url


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def store(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["store", *arguments], env={"COLUMNS": "200"})


def hashes(url: str) -> list[str]:
    log = open_log(url)
    found = [entry_hash for _, entry_hash in log.follow(0, GENESIS)]
    log.close()
    return found


def test_a_whole_log_is_told_with_its_hash(url: str) -> None:
    result = store("check", "--store", url)
    assert result.exit_code == 0, result.output
    assert "3 events, 1 live edit." in result.output
    assert hashes(url)[-1] in result.output
    assert CliRunner().invoke(app, ["log", "verify", "--store", url]).output == result.output


def test_a_damaged_log_is_told_by_its_entry(url: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute("UPDATE log SET entry = zeroblob(200) WHERE revision = 2")
    connection.commit()
    connection.close()
    result = store("check", "--store", url)
    assert result.exit_code == 1
    assert "Entry 2" in result.stderr


def test_a_log_moves_to_redis_and_back_with_the_same_hashes(url: str, redis: RedisServer, tmp_path: Path) -> None:
    assert store("migrate", url, redis.url).exit_code == 0
    assert hashes(redis.url) == hashes(url)
    back = f"sqlite:///{tmp_path}/back.db"
    assert "3 events copied" in store("migrate", redis.url, back).output
    assert hashes(back) == hashes(url)
    again = store("migrate", url, back)
    assert again.exit_code == 1
    assert "name an empty store" in again.stderr
    assert hashes(back) == hashes(url)


def test_a_log_is_carried_in_a_file(url: str, tmp_path: Path) -> None:
    file, other = tmp_path / "kept.errata", f"sqlite:///{tmp_path}/other.db"
    assert store("export", str(file), "--store", url).exit_code == 0
    assert store("export", str(file), "--store", url).exit_code == 1, "never over another file"
    assert store("import", str(file), "--store", other).exit_code == 0
    assert hashes(other) == hashes(url)
    assert {path.name for path in tmp_path.iterdir() if "partial" in path.name} == set()


def test_a_log_is_copied_under_a_secret_and_under_another_one(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, again = f"sqlite:///{tmp_path}/sealed.db", f"sqlite:///{tmp_path}/again.db"
    monkeypatch.setenv("ERRATA_LOG_SECRET", "a secret of the operators")
    refused = store("migrate", url, sealed)
    assert refused.exit_code == 1
    assert "from before the secret" in refused.stderr
    monkeypatch.setenv("ERRATA_SOURCE_LOG_SECRET", "")
    assert "its hashes are new" in store("migrate", url, sealed).output
    assert store("check", "--store", sealed).exit_code == 0
    monkeypatch.setenv("ERRATA_SOURCE_LOG_SECRET", "a secret of the operators")
    monkeypatch.setenv("ERRATA_LOG_SECRET", "quite another secret")
    assert store("migrate", sealed, again).exit_code == 0
    assert store("check", "--store", again).exit_code == 0
    wrong = store("check", "--store", sealed)
    assert wrong.exit_code == 1
    assert "another secret than ERRATA_LOG_SECRET" in wrong.stderr
    monkeypatch.delenv("ERRATA_LOG_SECRET")
    assert "set ERRATA_LOG_SECRET" in store("check", "--store", sealed).stderr


def test_a_snapshot_in_a_file_is_a_log_and_a_log_is_trimmed(url: str, tmp_path: Path) -> None:
    file, archive, other = tmp_path / "snap.db", tmp_path / "archive.db", f"sqlite:///{tmp_path}/other.db"
    written = CliRunner().invoke(app, ["snapshot", "write", str(file), "--store", url], env={"COLUMNS": "200"})
    assert "revision 3" in written.output, written.output
    assert "entries from 3 on" in store("check", "--store", f"sqlite:///{file}").output
    assert store("import", str(file), "--store", other).exit_code == 0
    assert "snapshots of revision 3 agree" in store("check", "--store", other).output

    assert store("export", str(archive), "--store", url).exit_code == 0
    refused = store("trim", "--archive", str(archive), "--store", url)
    assert refused.exit_code == 1
    assert "errata snapshot" in refused.stderr
    log = open_log(url)
    ledger, last = upkeep.fold(log)
    save(log, 3, last, records_of(ledger), 0.0)
    log.close()
    trimmed = store("trim", "--archive", str(archive), "--store", url)
    assert "begins at revision 3 (before: 1)" in trimmed.output, trimmed.output
    assert store("check", "--store", url).exit_code == 0
    assert "3 events" in store("check", "--store", f"sqlite:///{archive}").output


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a log, and long enough to be looked at as a database file" * 20)
    result = store("import", str(tmp_path / "x"), "--store", f"sqlite:///{tmp_path}/y.db")
    assert result.exit_code == 1
    assert "not an Errata log" in result.stderr
    assert store("check", "--store", "nonsense").exit_code == 1


def test_a_mistyped_name_does_not_become_a_log(tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path}/typo.db"
    for arguments in (["store", "check", "--store", missing], ["store", "migrate", missing, "memory://"],
                      ["keys", "list", "--store", missing]):  # fmt: skip
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 1
        assert "There is no log" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_programs_read(url: str, tmp_path: Path) -> None:
    whole = json.loads(store("check", "--store", url, "--json").stdout)
    assert (whole["revision"], whole["live_edits"], whole["hash"]) == (3, 1, hashes(url)[-1])
    copied = json.loads(store("export", str(tmp_path / "kept"), "--store", url, "--json").stdout)
    assert (copied["events"], copied["hashes_agree"]) == (3, True)
    missing = store("check", "--store", f"sqlite:///{tmp_path}/typo.db", "--json")
    assert json.loads(missing.stderr)["exit_code"] == missing.exit_code == 1
