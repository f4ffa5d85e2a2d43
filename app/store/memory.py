"""A log in this process's memory, for tests. It keeps encoded entries: what it returns is what a durable log would."""

from collections.abc import Iterator
from threading import Lock

from app.domain.events import Event
from app.store.chain import DEFAULT_MAX_PAYLOAD_BYTES, next_entry, walk
from app.store.codec import GENESIS, corrupt, decode


class MemoryLog:
    """A Log whose events are gone when it is."""

    def __init__(self, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._lock = Lock()
        self._entries: list[bytes] = []

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def durable(self) -> bool:
        return False

    def append(self, event: Event) -> None:
        with self._lock:
            head = len(self._entries)
            self._entries.append(next_entry(event, head, self._hash(head), self._max_payload_bytes))

    def head(self) -> int:
        return len(self._entries)

    def read(self, after: int = 0) -> Iterator[Event]:
        assert after >= 0
        with self._lock:
            after_hash = self._hash(after)
            entries = list(enumerate(self._entries[after:], start=after + 1))
        return walk(entries, after, after_hash)

    def close(self) -> None: ...

    def _hash(self, revision: int) -> str:
        if revision == 0:
            return GENESIS
        if revision > len(self._entries):
            raise corrupt(revision, f"it is missing: the log ends at {len(self._entries)}")
        return decode(self._entries[revision - 1], None, revision)[1]
