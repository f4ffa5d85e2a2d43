"""A cache of bytes in an SQLite file, by the hash of a text. It may be deleted at any time."""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

_log = logging.getLogger(__name__)
MAX_PER_QUERY = 500
"""The most texts that one query looks up."""
DROPPED_AT_ONCE = 256
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class BlobCache:
    """Bytes by text. Threads and processes may share the file.

    Failures raise nothing. The first one is a warning in the log, and callers compute what they miss.
    """

    def __init__(self, file: Path | None, most_bytes: int | None = None, wait_s: float = 5.0) -> None:
        """If `file` is None, nothing is cached. Beyond `most_bytes` the oldest entries are dropped. `wait_s` is the
        longest wait, in seconds, for a file that another process has locked."""
        self._file, self._most_bytes, self._wait_s = file, most_bytes, wait_s
        self._warned = False

    def load(self, texts: Sequence[str]) -> dict[str, bytes]:
        """The bytes of those texts that the cache has."""
        marks = {_mark(text): text for text in texts}
        blobs: dict[str, bytes] = {}
        with self._survived():
            if self._file is None or not self._file.exists():
                return {}
            with closing(
                sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", self._wait_s, uri=True)
            ) as opened:
                if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'blobs'").fetchone():
                    return {}  # another thread has begun the file
                wanted = list(marks)
                for first in range(0, len(wanted), MAX_PER_QUERY):
                    some = wanted[first : first + MAX_PER_QUERY]
                    places = ",".join("?" * len(some))
                    rows = opened.execute(f"SELECT mark, blob FROM blobs WHERE mark IN ({places})", some)
                    blobs.update((marks[mark], blob) for mark, blob in rows)
        return blobs

    def store(self, blobs: Mapping[str, bytes]) -> None:
        """Add entries, or replace them."""
        if self._file is None:
            return
        with self._survived():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, self._wait_s)) as opened:
                opened.execute("PRAGMA synchronous = OFF")  # a file that a crash has damaged is begun anew
                with opened:
                    opened.execute("CREATE TABLE IF NOT EXISTS blobs (mark BLOB PRIMARY KEY, blob BLOB)")
                    entries = [(_mark(text), blob) for text, blob in blobs.items()]
                    opened.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?)", entries)
                    self._shrink(opened)

    def _shrink(self, opened: sqlite3.Connection) -> None:
        """Drop the oldest entries until the rest fits. Their pages are used again."""
        oldest = "DELETE FROM blobs WHERE rowid IN (SELECT rowid FROM blobs ORDER BY rowid LIMIT ?)"
        while self._most_bytes is not None and _used_bytes(opened) > self._most_bytes:
            if not opened.execute(oldest, (DROPPED_AT_ONCE,)).rowcount:
                return

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Failures of the block become a warning. A file that is no database is deleted."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if (
                self._file is not None
                and isinstance(error, sqlite3.DatabaseError)
                and error.sqlite_errorcode in DAMAGED
            ):
                with suppress(OSError):
                    self._file.unlink()
            if not self._warned:
                self._warned = True
                _log.warning("The cache %s cannot be used, and its contents are computed again: %s", self._file, error)


def _mark(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _used_bytes(opened: sqlite3.Connection) -> int:
    pages, free, size = (
        int(opened.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
