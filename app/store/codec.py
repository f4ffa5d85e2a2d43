"""An event as the bytes of one log entry, and back. Knows the layout, not where entries are kept.

Layout: prefix | header | payload | hash
    prefix   magic "ERRATA", schema (2 bytes), header length (4), payload length (8), big endian
    header   JSON in UTF-8: kind, prev (the hash of the entry before, in hex) and the event's fields
    payload  the fields of bytes (an edit's tensors), raw, in the order in which the header names their lengths
    hash     SHA-256 of everything before it; as the header names the hash before, all entries form one chain
The magic, the place of the schema and the closing hash stay the same in every schema, so that an older Errata can tell
a newer entry from a damaged one. A changed field of an event, an edit or a request needs a new schema, and the reader
of each older one stays.
"""

import hashlib
import json
from io import BytesIO
from struct import Struct

from app.domain.errors import ErrataError, InvalidRequest, StoreCorrupt
from app.domain.events import EVENTS, Event
from app.store.fields import from_json, to_json

SCHEMA = 1
GENESIS = "0" * 64
"""What the first entry names as the hash before it."""

_MAGIC = b"ERRATA"
_PREFIX = Struct(">6sHIQ")
_HASH_BYTES = hashlib.sha256().digest_size


def encode(event: Event, prev_hash: str) -> bytes:
    """One log entry. Raises InvalidRequest for a text or JSON value that cannot be kept exactly."""
    if EVENTS.get(event.kind) is not type(event):
        raise TypeError(f"{type(event).__name__} is not a registered event")
    blobs: list[bytes] = []
    fields = to_json(event, type(event), "event", blobs)
    try:
        text = json.dumps(
            {"kind": event.kind, "prev": prev_hash, "event": fields},
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        header = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"A text holds half of a surrogate pair ({text[error.start]!a}), which is no character: remove it."
        ) from error
    except ValueError as error:
        raise InvalidRequest(f"A number is too long to be kept ({error}): use a text.") from error
    payload_bytes = sum(map(len, blobs))
    body = b"".join((_PREFIX.pack(_MAGIC, SCHEMA, len(header), payload_bytes), header, *blobs))
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, prev_hash: str | None, revision: int | None) -> tuple[Event, str]:
    """The event of an entry, and the entry's hash. None skips the check against the hash before, or the revision.

    Raises StoreCorrupt for any byte that is not what was written, and for an entry of a newer schema.
    """
    entry_hash, header_bytes, payload_bytes = _unseal(data, revision)
    header_end = _PREFIX.size + header_bytes
    if header_end + payload_bytes + _HASH_BYTES != len(data):
        raise corrupt(revision, "its lengths do not add up")
    try:
        header = json.loads(data[_PREFIX.size : header_end])
        if not isinstance(header, dict) or header.keys() != {"kind", "prev", "event"}:
            raise ValueError("its header has unknown or missing fields")
        if prev_hash is not None and header["prev"] != prev_hash:
            raise ValueError("it does not follow the entry before it, so one of them was moved, replaced or removed")
        if header["kind"] not in EVENTS:
            raise ValueError(f"its kind {header['kind']!r} is unknown")
        payload = BytesIO(data[header_end:-_HASH_BYTES])
        event = from_json(header["event"], EVENTS[header["kind"]], "event", payload)
        if payload.read(1):
            raise ValueError("its payload is longer than its fields")
        if revision is not None and event.revision != revision:
            raise ValueError(f"it holds revision {event.revision}")
    except (ValueError, TypeError, RecursionError, ErrataError) as error:
        raise corrupt(revision, str(error)) from error
    assert isinstance(event, Event)
    return event, entry_hash


def closing_hash(data: bytes) -> str:
    """The hash that an entry ends with, unverified: for an entry that was encoded here."""
    return data[-_HASH_BYTES:].hex()


def corrupt(revision: int | None, why: str) -> StoreCorrupt:
    """The error for an entry that is not what was written, with what to do."""
    which = "An entry" if revision is None else f"Entry {revision}"
    return StoreCorrupt(
        f"{which} of the log is not what was written: {why}. Nothing from it on is applied. Keep a copy of the log as "
        f"it is, and restore it from a backup or from a replica whose log is whole.",
        revision=revision,
    )


def _unseal(data: bytes, revision: int | None) -> tuple[str, int, int]:
    """Entry hash, header length and payload length of an entry whose closing hash is right and schema is known."""
    if len(data) < _PREFIX.size + _HASH_BYTES:
        raise corrupt(revision, f"it is cut short, to {len(data)} bytes")
    digest = hashlib.sha256(memoryview(data)[:-_HASH_BYTES]).digest()
    magic, schema, header_bytes, payload_bytes = _PREFIX.unpack_from(data)
    if magic != _MAGIC or digest != data[-_HASH_BYTES:]:
        raise corrupt(revision, "its bytes do not match its hash")
    if schema > SCHEMA:
        raise StoreCorrupt(
            f"Entry {'?' if revision is None else revision} of the log was written by a newer version of Errata "
            f"(schema {schema}; this version reads up to {SCHEMA}): run that version, or a newer one, on this log.",
            revision=revision,
            schema=schema,
        )
    if schema < 1:
        raise corrupt(revision, f"its schema {schema} never existed")
    return digest.hex(), header_bytes, payload_bytes
