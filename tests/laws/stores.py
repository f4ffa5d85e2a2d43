"""Every implementation of a log, each with a way to damage it. One enrols in the laws with one line in STORES."""

import sqlite3
from typing import Protocol

from app.store.base import Log
from app.store.chain import DEFAULT_CHAIN
from app.store.memory import MemoryLog
from app.store.redis import FIELD, RedisLog
from app.store.sqlite import SqliteLog
from tests.domain.samples import closed, committed, rolled_back, staged, switched
from tests.redis_server import RedisServer


class Store(Protocol):
    """One log, and a way to damage it behind its back. It is made with a directory and its chain."""

    def open(self) -> Log:
        """A handle on the log; each call may give another handle, never another log."""

    def entries(self) -> list[bytes]: ...

    def rewrite(self, entries: list[bytes]) -> None:
        """Put these bytes in place of the entries 1, 2, ..."""


class MemoryStore:
    def __init__(self, directory, chain=DEFAULT_CHAIN):
        self.log = MemoryLog(chain)

    def open(self):
        return self.log

    def entries(self):
        return [self.log.entry(revision) for revision in range(self.log.first(), self.log.head() + 1)]

    def rewrite(self, entries):
        self.log._entries[:] = entries


class SqliteStore:
    def __init__(self, directory, chain=DEFAULT_CHAIN):
        self.path, self.chain = directory / "log.sqlite", chain

    def open(self):
        return SqliteLog(self.path, self.chain)

    def entries(self):
        connection = sqlite3.connect(self.path)
        rows = connection.execute("SELECT entry FROM log ORDER BY revision").fetchall()
        connection.close()
        return [entry for (entry,) in rows]

    def rewrite(self, entries):
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM log")
        connection.executemany("INSERT INTO log VALUES (?, ?)", enumerate(entries, start=1))
        connection.execute("COMMIT")
        connection.close()


class RedisStore:
    server: RedisServer
    """The fixture's: it is emptied for each store."""

    def __init__(self, directory, chain=DEFAULT_CHAIN):
        self.chain = chain
        self.client = self.server.client()
        self.client.flushall()

    def open(self):
        return RedisLog(self.server.url, self.chain)

    def entries(self):
        return [fields[FIELD] for _, fields in self.client.xrange("errata:log")]

    def rewrite(self, entries):
        pipeline = self.client.pipeline()
        pipeline.delete("errata:log")
        for revision, entry in enumerate(entries, start=1):
            pipeline.xadd("errata:log", {FIELD: entry}, id=f"{revision}-0")
        pipeline.execute()


STORES = {"memory": MemoryStore, "sqlite": SqliteStore, "redis": RedisStore}

SAMPLES = [
    committed(1, "a", tensors=bytes(range(256)), metadata={"ticket": [1, 2.5, None, True, {"déjà": "vu"}]}),
    committed(2, "b", supersedes=("a",), expires_at_s=9.5, tensors=b""),
    staged(3, "B", "c", prompt="Wer leitet Lümen? 🦔\x00\u2028"),
    closed(4, "B", "c"),
    switched(5, None, False),
    rolled_back(6, "b"),
]


def filled(store, events=SAMPLES):
    log = store.open()
    for event in events:
        log.append(event)
    return log
