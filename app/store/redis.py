"""The log as a Redis stream, shared by several servers: each event is one XADD, whose id is its revision.

Redis accepts only ids above the last one. That is the compare-and-set between servers, without script or lock. An event
must never take more than one write: a Redis killed between the writes of a script may fail to start again.
"""

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.domain.errors import InvalidRequest, StoreUnavailable
from app.domain.events import Event
from app.store.chain import DEFAULT_CHAIN, Chain, lost_race
from app.store.codec import GENESIS, closing_hash, corrupt, hash_before
from app.store.redis_client import BLOCK_S, connect, disconnect, require_durable, translated
from app.store.seal import Seal

FIELD = b"e"
"""The only field of a stream entry; it holds the log entry's bytes."""
READ_BYTES = 8 * 2**20
"""Approximate memory that one read takes, in bytes; a read returns at least one entry."""


class RedisLog:
    """A Log in one stream, `<prefix>:log`, with a hash of named blobs beside it, `<prefix>:kept`.

    Any number of handles, in any number of processes, may append to it.
    """

    def __init__(
        self,
        url: str,
        chain: Chain = DEFAULT_CHAIN,
        *,
        prefix: str = "errata",
        allow_not_durable: bool = False,
    ) -> None:
        self._client, self._url = connect(url)
        self._key, self._kept = f"{prefix}:log", f"{prefix}:kept"
        self._chain = chain
        self._allow_not_durable = allow_not_durable
        self._lock = Lock()
        self._known = (0, GENESIS)
        """(revision, hash) of the newest entry that this handle has read or written for an append."""
        self._closed = False
        try:
            self._durable = require_durable(self._client, self._url, allow_not_durable=allow_not_durable)
        except BaseException:
            disconnect(self._client)
            raise

    @property
    def url(self) -> str:
        return self._url

    @property
    def durable(self) -> bool:
        return self._durable

    def recheck(self) -> None:
        self._check_open()
        try:
            self._durable = require_durable(self._client, self._url, allow_not_durable=self._allow_not_durable)
        except InvalidRequest:
            self._durable = False
            raise

    @property
    def seal(self) -> Seal:
        return self._chain.seal

    def append(self, event: Event) -> str:
        with self._lock:
            self._check_open()
            head = self.head()
            entry = self._chain.next_entry(event, head, self._known_hash(head))
            self._add(event.revision, entry, new=head == 0)
            entry_hash = closing_hash(entry)
            self._known = (event.revision, entry_hash)
        return entry_hash

    def _add(self, revision: int, entry: bytes, *, new: bool) -> None:
        """Performs the one write. If no answer comes, reads back whether it took effect."""
        command: list[Any] = ["XADD", self._key]
        if not new:
            command.append("NOMKSTREAM")  # never restart a deleted log in its middle
        try:
            added = self._client.execute_command(*command, f"{revision}-0", FIELD, entry)
        except (RedisConnectionError, RedisTimeoutError) as error:
            with translated(self._url):
                if self._entry(revision) == entry:
                    return
            # absent, or not yet present: the server may still be holding the command
            raise StoreUnavailable(
                f"{self._url} did not answer in time. Whether the event was kept is unknown: ask again with the same "
                f"idempotency key.",
                retry_after_s=1,
            ) from error
        except ResponseError as error:
            if "equal or smaller" in str(error):
                raise lost_race(revision, self.head()) from None
            with translated(self._url):
                raise
        if added is None:
            raise StoreUnavailable(f"The log {self._key} on {self._url} was deleted: restore it, then restart.")

    def head(self) -> int:
        self._check_open()
        with translated(self._url):
            newest = self._client.xrevrange(self._key, count=1)
        return _revision(newest[0][0]) if newest else 0

    def first(self) -> int:
        self._check_open()
        with translated(self._url):
            oldest = self._client.xrange(self._key, count=1)
        return _revision(oldest[0][0]) if oldest else 1

    def read(self, after: int = 0) -> Iterator[Event]:
        return (event for event, _ in self.follow(after, self.hash_of(after)))

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        self._check_open()
        return self._chain.walk(self._entries(after), after, after_hash)

    def hash_of(self, revision: int) -> str:
        assert revision >= 0
        self._check_open()
        if revision == 0:
            return GENESIS
        with translated(self._url):
            entry = self._entry(revision)
        if entry is None and revision == self.first() - 1:
            return hash_before(self.entry(revision + 1), revision + 1, self.seal)
        return closing_hash(self._verified(revision, entry))

    def entry(self, revision: int) -> bytes:
        self._check_open()
        with translated(self._url):
            return self._verified(revision, self._entry(revision))

    def _verified(self, revision: int, entry: bytes | None) -> bytes:
        if entry is None:
            raise corrupt(revision, f"it is missing: the log holds {self.first()} to {self.head()}")
        self._chain.verified(entry, revision)
        return entry

    def wait(self, after: int, timeout_s: float) -> bool:
        self._check_open()
        with translated(self._url):
            block_ms = max(1, int(min(timeout_s, BLOCK_S) * 1000))
            return bool(
                self._client.xread({self._key: f"{after}-0"}, count=1, block=block_ms)
            )  # on a connection of its own

    def trim(self, first: int) -> None:
        assert first <= self.head()
        with translated(self._url):
            self._client.xtrim(self._key, minid=f"{first}-0", approximate=False)

    def begin(self, revision: int, entry: bytes) -> None:
        self._chain.verified(entry, revision)
        with self._lock:
            head = self.head()
            if head:
                raise lost_race(revision, head)
            self._add(revision, entry, new=True)

    def put(self, name: str, data: bytes) -> None:
        self._check_open()
        with translated(self._url):
            self._client.hset(self._kept, name, data)

    def get(self, name: str) -> bytes | None:
        self._check_open()
        with translated(self._url):
            value: bytes | None = self._client.hget(self._kept, name)
        return value

    def names(self) -> list[str]:
        self._check_open()
        with translated(self._url):
            return [name.decode(errors="replace") for name in self._client.hkeys(self._kept)]

    def drop(self, names: Iterable[str]) -> None:
        self._check_open()
        with translated(self._url):
            for name in names:
                self._client.hdel(self._kept, name)

    def close(self) -> None:
        self._closed = True
        disconnect(self._client)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"The log on {self._url} is closed: the server is stopping.")

    def _known_hash(self, revision: int) -> str:
        """Like `hash_of`, without a round trip for the entry that this handle wrote or asked for last."""
        if revision != self._known[0]:
            self._known = (revision, self.hash_of(revision))
        return self._known[1]

    def _entry(self, revision: int) -> bytes | None:
        entries = self._client.xrange(self._key, min=f"{revision}-0", max=f"{revision}-0")
        return _value(revision, entries[0][1]) if entries else None

    def _entries(self, after: int) -> Iterator[tuple[int, bytes]]:
        count = 4
        while True:
            with translated(self._url):
                chunk = self._client.xrange(self._key, min=f"({after}-0", count=count)
            if not chunk:
                return
            size_bytes = 0
            for entry_id, fields in chunk:
                after = _revision(entry_id)
                entry = _value(after, fields)
                size_bytes += len(entry)
                yield after, entry
            count = max(1, min(1000, READ_BYTES * len(chunk) // (size_bytes + 1)))


def _revision(entry_id: bytes) -> int:
    revision, _, part = entry_id.partition(b"-")
    if part != b"0":
        raise corrupt(int(revision), "its id was not given by Errata")
    return int(revision)


def _value(revision: int, fields: dict[bytes, bytes]) -> bytes:
    if fields.keys() != {FIELD}:
        raise corrupt(revision, "it has other fields")
    return fields[FIELD]
