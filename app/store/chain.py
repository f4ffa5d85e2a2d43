"""What every log holds to, wherever it keeps its entries: revisions without gaps, a payload cap, a chain of hashes."""

from collections.abc import Iterable, Iterator

from app.domain.errors import InvalidRequest, LostRace
from app.domain.events import Event
from app.store.codec import corrupt, decode, encode

DEFAULT_MAX_PAYLOAD_BYTES = 64 * 2**20


def next_entry(event: Event, head: int, head_hash: str, max_payload_bytes: int) -> bytes:
    """The entry that follows `head`. Raises LostRace for an event of another revision, InvalidRequest above the cap."""
    if event.revision != head + 1:
        raise lost_race(event.revision, head)
    entry = encode(event, head_hash)
    if len(entry) > max_payload_bytes:
        raise InvalidRequest(
            f"The event takes {len(entry)} bytes in the log, above its cap of {max_payload_bytes}: shorten the "
            f"request's texts and metadata, or use an editor with smaller tensors.",
            entry_bytes=len(entry),
            max_payload_bytes=max_payload_bytes,
        )
    return entry


def lost_race(revision: int, head: int) -> LostRace:
    return LostRace(
        f"Revision {revision} cannot be appended: the log's head is {head}. Read what is new, then append {head + 1}.",
        revision=revision,
        head=head,
    )


def walk(entries: Iterable[tuple[int, bytes]], after: int, after_hash: str) -> Iterator[tuple[Event, str]]:
    """Events of the entries that follow `after`, with hashes. Raises StoreCorrupt at the first gap or broken link."""
    previous, previous_hash = after, after_hash
    for revision, entry in entries:
        if revision != previous + 1:
            raise corrupt(previous + 1, f"it is missing, and entry {revision} follows entry {previous}")
        event, previous_hash = decode(entry, previous_hash, revision)
        previous = revision
        yield event, previous_hash
