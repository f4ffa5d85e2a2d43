"""The log as a SQLite file in WAL mode, with every commit synced: the default, durable without another server."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from app.domain.errors import StoreCorrupt, StoreUnavailable
from app.domain.events import Event
from app.store.chain import DEFAULT_CHAIN, Chain, lost_race
from app.store.codec import GENESIS, closing_hash, corrupt, hash_before
from app.store.seal import Seal
from app.store.sqlite_file import damaged, open_file, translated

READ_ENTRIES = 256
READ_BYTES = 8 * 2**20
"""Bytes that one read takes into memory (at least one entry); appends may pass between reads."""

POLL_S = 0.1


class SqliteLog:
    """A Log in one file. Other processes may read and append to it; concurrent appends end in LostRace."""

    def __init__(
        self,
        path: str | Path,
        chain: Chain = DEFAULT_CHAIN,
        busy_timeout_s: float = 5.0,
    ) -> None:
        self._url = f"sqlite:///{path}"
        self._path = Path(path).absolute()  # a later change of the working directory must not move the log
        self._chain = chain
        self._lock = Lock()
        self._connection = open_file(self._path, busy_timeout_s)
        self._wal = self._path.with_name(f"{self._path.name}-wal")
        self._file = _identity(self._path)
        self._wal_file: tuple[int, int] | None = None
        self._known = (0, GENESIS)
        """(revision, hash) of the newest entry that this handle has read or written for an append."""
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def durable(self) -> bool:
        return True

    def recheck(self) -> None:
        with self._open():
            try:
                self._check_files()
            except StoreUnavailable as error:  # permanent: no further write reaches the original file
                raise StoreCorrupt(error.message) from error

    @property
    def seal(self) -> Seal:
        return self._chain.seal

    def append(self, event: Event) -> str:
        with self._open() as connection, translated(self._path):
            self._check_files()
            head = self._head(connection)
            entry = self._chain.next_entry(event, head, self._hash(connection, head))
            try:
                connection.execute("INSERT INTO log VALUES (?, ?)", (event.revision, entry))
            except sqlite3.IntegrityError:
                # Another process has appended since the head was read; the primary key decides.
                raise lost_race(event.revision, self._head(connection)) from None
            entry_hash = closing_hash(entry)
            self._known = (event.revision, entry_hash)
            if self._wal_file is None:
                self._wal_file = _identity(self._wal)
        return entry_hash

    def head(self) -> int:
        with self._open() as connection, translated(self._path):
            return self._head(connection)

    def first(self) -> int:
        with self._open() as connection, translated(self._path):
            return self._first(connection)

    def read(self, after: int = 0) -> Iterator[Event]:
        return (event for event, _ in self.follow(after, self.hash_of(after)))

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        return self._chain.walk(self._entries(after), after, after_hash)

    def hash_of(self, revision: int) -> str:
        assert revision >= 0
        with self._open() as connection, translated(self._path):
            return self._stored_hash(connection, revision)

    def entry(self, revision: int) -> bytes:
        with self._open() as connection, translated(self._path):
            return self._entry(connection, revision)

    def wait(self, after: int, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self.head() <= after:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(POLL_S, left_s))  # SQLite does not notify other processes of writes
        return True

    def trim(self, first: int) -> None:
        with self._open() as connection, translated(self._path):
            assert first <= self._head(connection)
            connection.execute("DELETE FROM log WHERE revision < ?", (first,))

    def begin(self, revision: int, entry: bytes) -> None:
        self._chain.verified(entry, revision)
        with self._open() as connection, translated(self._path):
            # A single statement, or another process could append the first entry between check and insert.
            inserted = connection.execute(
                "INSERT INTO log SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM log)", (revision, entry)
            )
            if not inserted.rowcount:
                raise lost_race(revision, self._head(connection))

    def put(self, name: str, data: bytes) -> None:
        with self._open() as connection, translated(self._path):
            self._check_files()
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, data))

    def get(self, name: str) -> bytes | None:
        with self._open() as connection, translated(self._path):
            row = connection.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return row[0] if row and isinstance(row[0], bytes) else None

    def names(self) -> list[str]:
        with self._open() as connection, translated(self._path):
            return [name for (name,) in connection.execute("SELECT name FROM kept")]

    def drop(self, names: Iterable[str]) -> None:
        with self._open() as connection, translated(self._path):
            connection.executemany("DELETE FROM kept WHERE name = ?", [(name,) for name in names])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()

    def _check_files(self) -> None:
        """Refuses to write to a deleted or replaced file: SQLite reports no error for it, and the writes are lost on
        close."""
        replaced = _identity(self._path) != self._file
        if replaced or (self._wal_file is not None and _identity(self._wal) != self._wal_file):
            raise StoreUnavailable(
                f"The log {self._path if replaced else self._wal} was removed or replaced while open, so that nothing "
                f"more can be kept in it: put it, or a backup, back in its place, and only then restart the server."
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise StoreUnavailable(f"The log {self._path} is closed: the server is stopping.")
            yield self._connection

    def _head(self, connection: sqlite3.Connection) -> int:
        """Newest revision. Raises StoreCorrupt unless it is the one that was appended last."""
        newest, appended = connection.execute(
            "SELECT coalesce((SELECT max(revision) FROM log), 0), (SELECT value FROM meta WHERE key = 'head')"
        ).fetchone()
        if newest != appended:
            raise damaged(self._path, f"it ends at entry {newest}, but entry {appended} was appended last")
        return int(newest)

    def _first(self, connection: sqlite3.Connection) -> int:
        (first,) = connection.execute("SELECT coalesce(min(revision), 1) FROM log").fetchone()
        return int(first)

    def _hash(self, connection: sqlite3.Connection, revision: int) -> str:
        """Hash of the entry at a revision; the entry is verified unless this handle wrote or verified it last."""
        if revision != self._known[0]:
            self._known = (revision, self._stored_hash(connection, revision))
        return self._known[1]

    def _stored_hash(self, connection: sqlite3.Connection, revision: int) -> str:
        if revision == 0:
            return GENESIS
        if revision == self._first(connection) - 1:
            return hash_before(self._entry(connection, revision + 1), revision + 1, self.seal)
        return closing_hash(self._entry(connection, revision))

    def _entry(self, connection: sqlite3.Connection, revision: int) -> bytes:
        row = connection.execute("SELECT entry FROM log WHERE revision = ?", (revision,)).fetchone()
        if row is None:
            raise corrupt(
                revision, f"it is missing: the log holds {self._first(connection)} to {self._head(connection)}"
            )
        entry = _blob(revision, row[0])
        self._chain.verified(entry, revision)
        return entry

    def _entries(self, after: int) -> Iterator[tuple[int, bytes]]:
        query = "SELECT revision, entry FROM log WHERE revision > ? ORDER BY revision LIMIT ?"
        while True:
            chunk: list[tuple[int, bytes]] = []
            with self._open() as connection, translated(self._path):
                # A cursor of its own, closed before the lock is released: an open one would keep the WAL from
                # shrinking.
                cursor = connection.execute(query, (after, READ_ENTRIES))
                size_bytes = 0
                for revision, value in cursor:
                    entry = _blob(revision, value)
                    chunk.append((revision, entry))
                    size_bytes += len(entry)
                    if size_bytes >= READ_BYTES:
                        break
                cursor.close()
                if not chunk and self._head(connection) == after:
                    return
            yield from chunk
            after = chunk[-1][0] if chunk else after


def _blob(revision: int, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise corrupt(revision, "it is not even bytes")
    return value


def _identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of the file that a path names now; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
