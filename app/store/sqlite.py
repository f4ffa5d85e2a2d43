"""The log as a SQLite file (write-ahead log, every commit synced): the default, durable with no other server."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from app.domain.errors import StoreUnavailable
from app.domain.events import Event
from app.store.chain import DEFAULT_MAX_PAYLOAD_BYTES, lost_race, next_entry, walk
from app.store.codec import GENESIS
from app.store.sqlite_file import open_file, translated

READ_ENTRIES = 256
READ_BYTES = 8 * 2**20
"""A read takes this much into memory at a time (and at least one entry); appends pass between."""


class SqliteLog:
    """A Log in one file. Other processes may read and append beside it; a lost race tells them apart."""

    def __init__(
        self,
        path: str | Path,
        max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES,
        busy_timeout_s: float = 5.0,
    ) -> None:
        self._url = f"sqlite:///{path}"
        self._path = Path(path).absolute()  # a later change of the working directory must not move the log
        self._max_payload_bytes = max_payload_bytes
        self._lock = Lock()
        self._connection = open_file(self._path, busy_timeout_s)
        self._file = _identity(self._path)
        self._known = (0, GENESIS)
        """The newest entry that this handle read or wrote for an append: its revision and hash."""
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def durable(self) -> bool:
        return True

    def append(self, event: Event) -> None:
        with self._open() as connection, translated(self._path):
            if _identity(self._path) != self._file:
                # A deleted file takes writes without an error, and loses them when it is closed.
                raise StoreUnavailable(f"The log {self._path} was removed or replaced while open: restart the server.")
            head = self._head(connection)
            entry = next_entry(event, head, self._hash(connection, head), self._max_payload_bytes)
            try:
                connection.execute("INSERT INTO log VALUES (?, ?)", (event.revision, entry))
            except sqlite3.IntegrityError:
                # Another process appended since the head was read: the primary key is the arbiter.
                raise lost_race(event.revision, self._head(connection)) from None
            self._known = (event.revision, decode_hash(entry))

    def head(self) -> int:
        with self._open() as connection, translated(self._path):
            return self._head(connection)

    def read(self, after: int = 0) -> Iterator[Event]:
        assert after >= 0
        with self._open() as connection, translated(self._path):
            after_hash = self._hash(connection, after)
        return walk(self._entries(after), after, after_hash)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()
