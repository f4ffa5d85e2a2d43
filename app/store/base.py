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

    def append(self, event: Event) -> None:
        """Make the event durable, or raise and leave the log as it was. Returning is the commit point.

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

    def close(self) -> None: ...
