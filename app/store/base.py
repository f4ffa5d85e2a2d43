"""The contract of every log. Knows events, nothing of models or of what the tensors inside them mean."""

from collections.abc import Iterator
from typing import Protocol

from app.domain.events import Event


class Log(Protocol):
    """An append-only list of events with gapless revisions 1, 2, 3, ...; its methods may block and are thread-safe."""

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        ...

    @property
    def durable(self) -> bool:
        """Whether an appended event survives kill -9 (and, as far as the disk keeps its word, power loss)."""
        ...

    def append(self, event: Event) -> str:
        """Make the event durable, or raise and leave the log as it was. -> its entry's hash; that is the commit point.

        Raises LostRace unless `event.revision` is head + 1, InvalidRequest above the payload cap, StoreUnavailable
        when it cannot be written (the outcome may then be unknown).
        """
        ...

    def head(self) -> int:
        """The newest revision; 0 for an empty log."""
        ...

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events above `after`, in order. Raises StoreCorrupt at the first entry that is not what was written."""
        ...

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        """Events above `after` with their hashes. Raises StoreCorrupt unless they go on from that very entry."""
        ...

    def hash_of(self, revision: int) -> str:
        """The hash of the entry of a revision, which stands for all before it. Raises StoreCorrupt where it is gone."""
        ...

    def wait(self, after: int, timeout_s: float) -> bool:
        """Whether an event above `after`, by whomever, is there within the time. Appends and reads go on meanwhile."""
        ...

    def close(self) -> None: ...
