"""The SQLite file of a log: created, or refused if it is something else. Knows nothing of events or entries."""

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.errors import InvalidRequest, StoreCorrupt, StoreUnavailable

APPLICATION_ID = int.from_bytes(b"ERRA", "big")
"""Application id in the file's header; it tells an Errata log from other SQLite databases."""
FORMAT = 1

_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_BUSY: "end the other process that holds it",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and is writable",
    sqlite3.SQLITE_IOERR: "check its disk",
}


def open_file(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to the log's file, which is created if it is missing.

    Its folder is not created: a mistyped path or an unmounted volume would silently become an empty log. Raises
    InvalidRequest for a file that is not an Errata log or has no folder, StoreCorrupt for a newer format,
    StoreUnavailable for a file that cannot be written.
    """
    if path.is_dir():
        raise InvalidRequest(f"{path} is a directory: name a file in it, such as {path / 'errata.db'}.")
    if not path.parent.is_dir():
        raise InvalidRequest(
            f"The log's folder {path.parent} does not exist: make it (mkdir -p {shlex.quote(str(path.parent))}), or "
            "name another with --store or ERRATA_STORE."
        )
    for target in (path, path.parent):
        # SQLite would silently open it read-only, and the first edit would fail.
        if target.exists() and not os.access(target, os.W_OK):
            raise StoreUnavailable(f"The log {path} cannot be written: make the file and its directory writable.")
    with translated(path):
        # Statements autocommit; threads share the connection under the log's lock.
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        with translated(path):
            _claim(connection, path)
            _use_wal(connection, path, busy_timeout_s)
            connection.execute("PRAGMA synchronous=FULL")  # NORMAL may lose commits on power loss
            connection.execute("PRAGMA fullfsync=ON")  # macOS: a plain fsync leaves the data in the drive's cache
        _sync_directory(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translates SQLite errors into domain errors with a remedy."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            raise InvalidRequest(
                f"{path} is not an Errata log, nor any SQLite database: name another file. If it was a log, it is "
                f"damaged: restore it from a backup."
            ) from error
        # All statements are fixed, so "no such table" and the like can only come from a damaged file.
        if not isinstance(error, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR:
            raise damaged(path, str(error)) from error
        advice = _ADVICE.get(code, "check its disk and permissions")
        raise StoreUnavailable(
            f"The log {path} cannot be used now ({error}): {advice}. Whether an event under way was kept is unknown: "
            f"ask again with the same idempotency key."
        ) from error
    except UnicodeDecodeError as error:  # SQLite quotes the damaged bytes in its message
        raise damaged(path, "its schema is not text") from error


def damaged(path: Path, why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The log {path} is damaged ({why}): keep a copy of it as it is, with its -wal file, and restore it from a "
        f"backup or from a replica."
    )


def _claim(connection: sqlite3.Connection, path: Path) -> None:
    """Initialises an empty file as a log; refuses a file of another program or of a newer format."""
    if _is_empty(connection):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _is_empty(connection):  # checked again: another process may have initialised it while this one waited
                connection.execute("CREATE TABLE log (revision INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
                connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
                connection.execute("INSERT INTO meta VALUES ('format', ?), ('head', 0)", (FORMAT,))
                # Stored apart from the entries: the hash chain alone cannot show that the newest entries are gone.
                connection.execute(
                    "CREATE TRIGGER head AFTER INSERT ON log BEGIN "
                    "UPDATE meta SET value = new.revision WHERE key = 'head'; END"
                )
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise InvalidRequest(f"{path} is the SQLite database of another program, not an Errata log: name another file.")
    connection.execute("CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
    (format_,) = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() or (None,)
    if not isinstance(format_, int) or format_ < 1:
        raise damaged(path, "its format is not named")
    if format_ > FORMAT:
        raise StoreCorrupt(
            f"The log {path} was written by a newer version of Errata (format {format_}; this version reads up to "
            f"{FORMAT}): run that version, or a newer one, on this log."
        )


def _is_empty(connection: sqlite3.Connection) -> bool:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(application_id == 0 and tables == 0)


def _use_wal(connection: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    deadline_s = time.monotonic() + busy_timeout_s
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # When two processes create the same log, SQLite answers "locked" here without its busy timeout.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreUnavailable(
            f"The log {path} cannot use a write-ahead log (SQLite answers {mode!r}): put it on a local disk."
        )


def _sync_directory(directory: Path) -> None:
    """Makes directory entries durable: otherwise a power loss may leave a synced file that no name leads to."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
