"""The contract of every log and of the named blobs beside it. Knows events, but neither models nor tensors."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from app.domain.events import Event
from app.store.seal import Seal


class Log(Protocol):
    """An append-only list of events with gapless revisions 1, 2, 3, ...; its methods may block and are thread-safe."""

    @property
    def url(self) -> str:
        """Location of the log, without secrets."""

    @property
    def durable(self) -> bool:
        """True if an appended event survives kill -9 and, if the disk honours flushes, power loss."""

    def recheck(self) -> None:
        """Check again, as at opening, that appends are durable: the storage can be removed while the server runs.

        Raises InvalidRequest or StoreCorrupt if they are not, StoreUnavailable if the log does not answer.
        """

    @property
    def seal(self) -> Seal:
        """The seal of its entries and of the blobs beside them."""

    def append(self, event: Event) -> str:
        """Make the event durable, or raise and leave the log unchanged. -> the entry's hash. This is the commit point.

        Raises LostRace unless `event.revision` is head + 1, InvalidRequest above the payload cap, StoreUnavailable if
        it cannot be written (the outcome may then be unknown).
        """

    def head(self) -> int:
        """Newest revision; 0 for an empty log."""

    def first(self) -> int:
        """Oldest revision that is kept: 1 until the log is trimmed."""

    def read(self, after: int = 0) -> Iterator[Event]:
        """Events above `after`, in order. Raises StoreCorrupt at the first damaged entry."""

    def follow(self, after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        """Events above `after` with their hashes. Raises StoreCorrupt unless the first links to `after_hash`."""

    def hash_of(self, revision: int) -> str:
        """Hash of the entry at a revision; it covers all entries before it. Raises StoreCorrupt if the entry is gone.

        For the revision just below `first`, it is the hash that the first entry names.
        """

    def entry(self, revision: int) -> bytes:
        """The stored bytes of an entry, verified. Raises StoreCorrupt if the entry is gone."""

    def wait(self, after: int, timeout_s: float) -> bool:
        """True if an event above `after`, from any writer, arrives within the time. Does not block appends or reads."""

    # -- logs that do not begin at revision 1

    def trim(self, first: int) -> None:
        """Delete the entries below `first` permanently. The caller has archived them and keeps a snapshot at or above
        `first`."""

    def begin(self, revision: int, entry: bytes) -> None:
        """Start an empty log with the first entry of a trimmed one. Raises LostRace if it is not empty, StoreCorrupt if
        the entry is damaged."""

    # -- named blobs beside the entries, such as snapshots

    def put(self, name: str, data: bytes) -> None:
        """Store a blob, replacing one of the same name. It is durable on return."""

    def get(self, name: str) -> bytes | None: ...

    def names(self) -> list[str]: ...

    def drop(self, names: Iterable[str]) -> None: ...

    def close(self) -> None: ...
