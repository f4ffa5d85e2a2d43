"""A log in this process's memory, for tests, measurements and commands that keep nothing. It stores encoded entries,
so it returns exactly what a durable log would."""

from collections.abc import Iterable, Iterator
from threading import Condition

from app.domain.events import Event
from app.store.chain import DEFAULT_CHAIN, Chain, lost_race
from app.store.codec import GENESIS, closing_hash, corrupt, hash_before
from app.store.seal import Seal


class MemoryLog:
    """A Log whose events are lost with the process."""

    def __init__(self, chain: Chain = DEFAULT_CHAIN) -> None:
        self._chain = chain
        self._changed = Condition()
        self._entries: list[bytes] = []
        self._first = 1
        """Revision of `_entries[0]`."""
        self._kept: dict[str, bytes] = {}
        self._closings = 0

    @property
    def url(self) -> str:
        return "memory://"

    @property
    def durable(self) -> bool:
        return False

    def recheck(self) -> None: ...

    @property
    def seal(self) -> Seal:
        return self._chain.seal

    def append(self, event: Event) -> str:
        with self._changed:
            head = self.head()
            entry = self._chain.next_entry(event, head, self.hash_of(head))
            self._entries.append(entry)
            self._changed.notify_all()
        return closing_hash(entry)

    def head(self) -> int:
        return self._first - 1 + len(self._entries)

    def first(self) -> int:
        return self._first

    def read(self, after: int = 0) -> Iterator[Event]:
        return (event for event, _ in self.follow(after, self.hash_of(after)))

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        with self._changed:
            begin = max(after + 1, self._first)
            entries = list(enumerate(self._entries[begin - self._first :], start=begin))
        return self._chain.walk(entries, after, after_hash)

    def wait(self, after: int, timeout_s: float) -> bool:
        with self._changed:
            closings = self._closings
            self._changed.wait_for(lambda: self.head() > after or self._closings > closings, timeout_s)
            return self.head() > after

    def close(self) -> None:
        """Wakes pending `wait` calls only: the object itself is the storage, and another server may still use it."""
        with self._changed:
            self._closings += 1
            self._changed.notify_all()

    def hash_of(self, revision: int) -> str:
        assert revision >= 0
        if revision == 0:
            return GENESIS
        if revision == self._first - 1 and self._entries:
            return hash_before(self._entries[0], self._first, self.seal)
        return closing_hash(self.entry(revision))

    def entry(self, revision: int) -> bytes:
        if not self._first <= revision <= self.head():
            raise corrupt(revision, f"it is missing: the log holds {self._first} to {self.head()}")
        entry = self._entries[revision - self._first]
        self._chain.verified(entry, revision)
        return entry

    def trim(self, first: int) -> None:
        with self._changed:
            assert first <= self.head()
            del self._entries[: max(0, first - self._first)]
            self._first = max(first, self._first)

    def begin(self, revision: int, entry: bytes) -> None:
        self._chain.verified(entry, revision)
        with self._changed:
            if self._entries:
                raise lost_race(revision, self.head())
            self._first, self._entries = revision, [entry]

    def put(self, name: str, data: bytes) -> None:
        self._kept[name] = data

    def get(self, name: str) -> bytes | None:
        return self._kept.get(name)

    def names(self) -> list[str]:
        return list(self._kept)

    def drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._kept.pop(name, None)
