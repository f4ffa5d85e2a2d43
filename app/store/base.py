"""The contract of every log, and of what is kept beside it. Knows events, nothing of models or of tensors."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from app.domain.events import Event
from app.store.seal import Seal


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

    def recheck(self) -> None:
        """Look again whether what is appended is kept, as when the log was opened: it can be taken away while it runs.

        Raises InvalidRequest or StoreCorrupt where it is not, StoreUnavailable where the log does not answer.
        """
        ...

    @property
    def seal(self) -> Seal:
        """What closes its entries, and what is kept beside them."""
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

    def first(self) -> int:
        """The oldest revision that is kept: 1 until the log is trimmed."""
        ...

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events above `after`, in order. Raises StoreCorrupt at the first entry that is not what was written."""
        ...

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        """Events above `after` with their hashes. Raises StoreCorrupt unless they go on from that very entry."""
        ...

    def hash_of(self, revision: int) -> str:
        """The hash of the entry of a revision, which stands for all before it. Raises StoreCorrupt where it is gone.

        For the revision just below `first` it is the one that the first entry names.
        """
        ...

    def entry(self, revision: int) -> bytes:
        """An entry as it is stored, verified. Raises StoreCorrupt where it is gone."""
        ...

    def wait(self, after: int, timeout_s: float) -> bool:
        """Whether an event above `after`, by whomever, is there within the time. Appends and reads go on meanwhile."""
        ...

    # -- a log that does not begin at 1

    def trim(self, first: int) -> None:
        """Forget the entries below `first`, for good. The caller has them elsewhere, and a snapshot at or above."""
        ...

    def begin(self, revision: int, entry: bytes) -> None:
        """Start an empty log with the entry that another, trimmed one starts with. Raises LostRace if it is not empty.

        Raises StoreCorrupt unless the entry is what was written.
        """
        ...

    # -- bytes under names, beside the entries: snapshots

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns. A name that is there is replaced."""
        ...

    def get(self, name: str) -> bytes | None: ...

    def names(self) -> list[str]: ...

    def drop(self, names: Iterable[str]) -> None: ...

    def close(self) -> None: ...
