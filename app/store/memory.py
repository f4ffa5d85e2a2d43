"""A log in this process's memory, for tests. It keeps encoded entries: what it returns is what a durable log would."""

from collections.abc import Iterator
from threading import Condition

from app.domain.events import Event
from app.store.chain import DEFAULT_MAX_PAYLOAD_BYTES, next_entry, walk
from app.store.codec import GENESIS, closing_hash, corrupt, decode


class MemoryLog:
    """A Log whose events are gone when it is."""

    def __init__(self, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._changed = Condition()
        self._entries: list[bytes] = []
        self._closings = 0

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def durable(self) -> bool:
        return False

    def append(self, event: Event) -> str:
        with self._changed:
            head = len(self._entries)
            entry = next_entry(event, head, self.hash_of(head), self._max_payload_bytes)
            self._entries.append(entry)
            self._changed.notify_all()
        return closing_hash(entry)

    def head(self) -> int:
        return len(self._entries)

    def read(self, after: int = 0) -> Iterator[Event]:
        return (event for event, _ in self.follow(after, self.hash_of(after)))

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        with self._changed:
            entries = list(enumerate(self._entries[after:], start=after + 1))
        return walk(entries, after, after_hash)

    def wait(self, after: int, timeout_s: float) -> bool:
        with self._changed:
            closings = self._closings
            self._changed.wait_for(lambda: len(self._entries) > after or self._closings > closings, timeout_s)
            return len(self._entries) > after

    def close(self) -> None:
        """Ends only what waits: it is all the durability there is that another server may still use it."""
        with self._changed:
            self._closings += 1
            self._changed.notify_all()

    def hash_of(self, revision: int) -> str:
        assert revision >= 0
        if revision == 0:
            return GENESIS
        if revision > len(self._entries):
            raise corrupt(revision, f"it is missing: the log ends at {len(self._entries)}")
        return decode(self._entries[revision - 1], None, revision)[1]
