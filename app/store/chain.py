"""Rules of every log, wherever it keeps its entries: gapless revisions, a payload cap, a hash chain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.domain.errors import InvalidRequest, LostRace
from app.domain.events import Event
from app.store.codec import corrupt, decode, encode
from app.store.seal import PLAIN, Seal


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules of one log. `seal` closes its entries."""

    max_payload_bytes: int = 64 * 2**20
    seal: Seal = PLAIN

    def next_entry(self, event: Event, head: int, head_hash: str) -> bytes:
        """The entry that follows `head`. Raises LostRace for an event of another revision, InvalidRequest above the
        cap."""
        if event.revision != head + 1:
            raise lost_race(event.revision, head)
        entry = encode(event, head_hash, self.seal)
        if len(entry) > self.max_payload_bytes:
            raise InvalidRequest(
                f"The event takes {len(entry)} bytes in the log, above its cap of {self.max_payload_bytes}: shorten "
                f"the request's texts and metadata, or use an editor with smaller tensors.",
                entry_bytes=len(entry),
                max_payload_bytes=self.max_payload_bytes,
            )
        return entry

    def verified(self, entry: bytes, revision: int) -> str:
        """The hash of an entry. Raises StoreCorrupt if the entry is damaged."""
        return decode(entry, None, revision, self.seal)[1]

    def walk(self, entries: Iterable[tuple[int, bytes]], after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
        """Events and hashes of the entries after `after`. Raises StoreCorrupt at a gap or a broken link."""
        previous, previous_hash = after, after_hash
        for revision, entry in entries:
            if revision != previous + 1:
                raise corrupt(previous + 1, f"it is missing, and entry {revision} follows entry {previous}")
            event, previous_hash = decode(entry, previous_hash, revision, self.seal)
            previous = revision
            yield event, previous_hash


DEFAULT_CHAIN = Chain()


def lost_race(revision: int, head: int) -> LostRace:
    return LostRace(
        f"Revision {revision} cannot be appended: the log's head is {head}. Read what is new, then append {head + 1}.",
        revision=revision,
        head=head,
    )
