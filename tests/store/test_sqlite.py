"""The promises of the SQLite log alone: its file, its settings, its refusals, and its conduct when it cannot write."""

import os
import sqlite3
from pathlib import Path

import pytest

from app.domain.errors import InvalidRequest, StoreCorrupt, StoreUnavailable
from app.store.sqlite import SqliteLog
from app.store.sqlite_file import APPLICATION_ID
from tests.domain.samples import committed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "errata.sqlite"


@pytest.fixture
def connections(monkeypatch):
    """All connections to SQLite files that are opened from now on."""
    connect, opened = sqlite3.connect, []

    def kept(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    return opened


@pytest.fixture
def log(path, connections):
    log = SqliteLog(path, busy_timeout_s=0.1)
    yield log
    log.close()


@pytest.fixture
def connection(log, connections):
    """The log's own: some settings hold for one connection alone."""
    return connections[0]


def sql(path, *statements):
    """Runs statements on the file beside the log, and gives the rows of the last."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


def test_its_settings_keep_what_is_acknowledged(path, log, connection):
    def pragma(name):
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("fullfsync")) == ("wal", 2, 1)
    assert pragma("busy_timeout") == 100
    assert sql(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert sql(path, "SELECT key, value FROM meta") == [("format", 1), ("head", 0)]
    assert (log.url, log.durable) == (f"sqlite:///{path}", True)


def test_it_waits_five_seconds_for_another_process_unless_told_otherwise(path, connections):
    log = SqliteLog(path)
    assert connections[0].execute("PRAGMA busy_timeout").fetchone() == (5000,)
    log.close()


def test_the_name_of_a_new_log_is_synced_in_its_folder(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    SqliteLog(tmp_path / "log.sqlite").close()
    assert synced == [tmp_path.stat().st_ino]


def test_a_change_of_the_working_directory_does_not_move_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = SqliteLog("log.sqlite")
    monkeypatch.chdir("/")
    log.append(committed(1))
    log.close()
    assert (log.url, (tmp_path / "log.sqlite").exists()) == ("sqlite:///log.sqlite", True)


# -- refusals


def test_an_empty_file_becomes_a_log(path):
    path.touch()
    log = SqliteLog(path)
    log.append(committed(1))
    assert (log.head(), [event.revision for event in log.read()]) == (1, [1])
    log.close()


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="is a directory: name a file"):
        SqliteLog(tmp_path)


def test_a_folder_that_does_not_exist_is_refused_and_not_made(tmp_path):
    with pytest.raises(InvalidRequest, match="does not exist: make it"):
        SqliteLog(tmp_path / "sub folder" / "log.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "statements",
    [["CREATE TABLE log (revision INTEGER PRIMARY KEY, entry BLOB)"], ["PRAGMA application_id=7"]],
    ids=["other tables", "other application"],
)
def test_the_database_of_another_program_is_refused_and_left_alone(path, statements):
    sql(path, *statements)
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match="another program"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"the quick brown fox " * 300)
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match="not an Errata log, nor any SQLite database"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused(path):
    SqliteLog(path).close()
    sql(path, "UPDATE meta SET value = 2 WHERE key = 'format'")
    with pytest.raises(StoreCorrupt, match=r"newer version of Errata \(format 2"):
        SqliteLog(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the next test asks the same of any user")
def test_a_read_only_file_is_refused_at_the_start(path):
    SqliteLog(path).close()
    path.chmod(0o400)
    with pytest.raises(StoreUnavailable, match="make the file and its directory writable"):
        SqliteLog(path)


@pytest.mark.parametrize("forbidden", ["file", "directory"])
def test_what_the_system_calls_read_only_is_refused_at_the_start(path, forbidden, monkeypatch):
    SqliteLog(path).close()
    target = path if forbidden == "file" else path.parent
    monkeypatch.setattr(os, "access", lambda asked, mode: Path(asked) != target)
    with pytest.raises(StoreUnavailable, match="make the file and its directory writable"):
        SqliteLog(path)


# -- a log that cannot be written now


def still_whole(path, revisions):
    log = SqliteLog(path)
    try:
        assert [event.revision for event in log.read()] == revisions
    finally:
        log.close()


def test_a_log_that_turns_read_only_is_unavailable(path, log, connection):
    connection.execute("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable, match="writable"):
        log.append(committed(1))
    connection.execute("PRAGMA query_only=OFF")
    log.append(committed(1))
    still_whole(path, [1])


def test_a_full_disk_is_unavailable_and_loses_nothing(path, log, connection):
    log.append(committed(1))
    connection.execute("PRAGMA max_page_count=8")
    with pytest.raises(StoreUnavailable, match="free space"):
        log.append(committed(2, "e2", tensors=bytes(100_000)))
    assert log.head() == 1
    connection.execute("PRAGMA max_page_count=1000000")
    log.append(committed(2, "e2"))
    still_whole(path, [1, 2])


def test_a_held_log_is_unavailable_after_the_timeout_and_can_still_be_read(path, log):
    log.append(committed(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="end the other process"):
        log.append(committed(2, "e2"))
    assert [event.revision for event in log.read()] == [1]
    other.execute("COMMIT")
    other.close()
    log.append(committed(2, "e2"))


def test_a_removed_or_replaced_file_takes_no_more_events(path, log):
    log.append(committed(1))
    path.rename(path.with_suffix(".moved"))
    with pytest.raises(StoreCorrupt, match="removed or replaced"):
        log.recheck()
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        log.append(committed(2, "e2"))
    SqliteLog(path).close()
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        log.append(committed(2, "e2"))


def test_a_closed_log_is_unavailable(path):
    log = SqliteLog(path)
    log.append(committed(1))
    events = log.read()
    log.close()
    log.close()
    for ask in (log.head, lambda: log.append(committed(2)), lambda: log.read(), lambda: next(events)):
        with pytest.raises(StoreUnavailable, match="is closed"):
            ask()


def test_a_damaged_page_is_named_as_damage(path):
    log = SqliteLog(path)
    for revision in range(1, 40):
        log.append(committed(revision, f"e{revision}", tensors=bytes(4096)))
    log.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="restore it"):
        still_whole(path, list(range(1, 40)))


def test_newest_entries_that_are_gone_are_missed(path, log):
    for revision in (1, 2, 3):
        log.append(committed(revision, f"e{revision}"))
    sql(path, "DELETE FROM log WHERE revision = 3")
    for ask in (log.head, lambda: log.append(committed(3, "again")), lambda: list(log.read())):
        with pytest.raises(StoreCorrupt, match="ends at entry 2, but entry 3 was appended last"):
            ask()


def test_no_flipped_byte_of_the_file_changes_what_is_read(path):
    """Some bytes of a SQLite file mean nothing; the others must raise. Every 41st offset; all 20,480 take 20 s."""
    events = [committed(1, "a", tensors=bytes(3000)), committed(2, "b"), committed(3, "c", tensors=bytes(500))]
    log = SqliteLog(path)
    for event in events:
        log.append(event)
    log.close()
    whole = path.read_bytes()
    seen = 0
    for offset in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        try:
            still_whole(path, [1, 2, 3])
        except (StoreCorrupt, InvalidRequest):
            seen += 1
    assert seen > 100
