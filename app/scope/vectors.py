"""A cache of sentence vectors between starts, because encoding a hundred thousand edits again would take minutes.

The cache folder holds one SQLite file for each encoder. It may be deleted at any time; missing vectors are computed.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from app.scope.encoder import Encoder

_log = logging.getLogger(__name__)
MAX_PER_QUERY = 500
"""The most texts that one query looks up."""


class Vectors:
    """Computes vectors (N, E) fp32 of length 1, and caches those of edits. Without a folder nothing is cached."""

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._file = None if folder is None else folder / f"vectors-{encoder.fingerprint}.sqlite"

    def of(self, texts: Sequence[str]) -> Tensor:
        """The vectors of texts, from the cache as far as it has them."""
        found = torch.zeros(len(texts), self._encoder.width)
        marks = [hashlib.sha256(text.encode()).digest() for text in texts]
        known = self._load(list(dict.fromkeys(marks)))
        missing = [at for at, mark in enumerate(marks) if mark not in known]
        if missing:
            computed = self._encoder.vectors([texts[at] for at in missing])
            new = {marks[at]: computed[row].numpy().tobytes() for row, at in enumerate(missing)}
            self._store(new)
            known |= new
        for at, mark in enumerate(marks):
            found[at] = torch.frombuffer(bytearray(known[mark]), dtype=torch.float32)
        return found

    def uncached(self, texts: Sequence[str]) -> Tensor:
        """The vectors of people's questions, which are never written to disk."""
        return self._encoder.vectors(texts)

    def _load(self, marks: Sequence[bytes]) -> dict[bytes, bytes]:
        if self._file is None or not self._file.exists():
            return {}
        found: dict[bytes, bytes] = {}
        try:
            with closing(sqlite3.connect(self._file)) as opened:
                for first in range(0, len(marks), MAX_PER_QUERY):
                    some = marks[first : first + MAX_PER_QUERY]
                    places = ",".join("?" * len(some))
                    found.update(opened.execute(f"SELECT mark, vector FROM vectors WHERE mark IN ({places})", some))
        except sqlite3.Error as error:
            _log.warning("Cached vectors cannot be read, and are computed again: %s", error)
        size = 4 * self._encoder.width
        return {mark: vector for mark, vector in found.items() if len(vector) == size}

    def _store(self, vectors: dict[bytes, bytes]) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file)) as opened, opened:
                opened.execute("CREATE TABLE IF NOT EXISTS vectors (mark BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
                opened.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", vectors.items())
        except (OSError, sqlite3.Error) as error:
            _log.warning("Vectors cannot be cached for the next start: %s", error)
