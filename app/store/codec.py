"""An event as the bytes of one log entry, and back. Knows the layout, not where entries are kept.

Layout: prefix | header | payload | hash
    prefix   magic "ERRATA", schema (2 bytes, the highest bit set where a secret closes the entry), header length (4),
             payload length (8), big endian
    header   JSON in UTF-8: kind, prev (the hash of the entry before, in hex) and the event's fields
    payload  the fields of bytes (an edit's tensors), raw, in the order in which the header names their lengths
    hash     SHA-256 of everything before it, HMAC-SHA-256 under a secret; as the header names the hash before, all
             entries form one chain
The magic, the place of the schema and the closing hash stay the same in every schema, so that an older Errata can tell
a newer entry from a damaged one. A new field of an event needs a new schema, which its metadata names, and a default,
which it has in older entries.
"""

import json
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from struct import error as StructError

from app.domain.errors import ErrataError, InvalidRequest, StoreCorrupt
from app.domain.events import EVENTS, Event
from app.store.fields import from_json, schema_of, to_json
from app.store.seal import DIGEST_BYTES, PLAIN, Seal

SCHEMA = 4
"""The newest. Each event is written in the oldest that can hold it, so that an older Errata reads on."""
_SINCE = {"edits_refitted": 2, "edit_retuned": 3, "probes_set": 3}
GENESIS = "0" * 64
"""What the first entry names as the hash before it."""

_MAGIC = b"ERRATA"
_PREFIX = Struct(">6sHIQ")
_KEYED = 0x8000


def encode(event: Event, prev_hash: str, seal: Seal = PLAIN) -> bytes:
    """One log entry. Raises InvalidRequest for a text or JSON value that cannot be kept exactly."""
    if EVENTS.get(event.kind) is not type(event):
        raise TypeError(f"{type(event).__name__} is not a registered event")
    blobs: list[bytes] = []
    schema = max(_SINCE.get(event.kind, 1), schema_of(event))
    fields = to_json(event, type(event), "event", blobs, schema)
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
    if seal.keyed:
        schema |= _KEYED
    body = b"".join((_PREFIX.pack(_MAGIC, schema, len(header), payload_bytes), header, *blobs))
    return body + seal.digest(body)


def decode(data: bytes, prev_hash: str | None, revision: int | None, seal: Seal = PLAIN) -> tuple[Event, str]:
    """The event of an entry, and the entry's hash. None skips the check against the hash before, or the revision.

    Raises StoreCorrupt for any byte that is not what was written, and for an entry of a newer schema.
    """
    entry_hash, schema, header_bytes, payload_bytes = _unseal(data, revision, seal)
    header_end = _PREFIX.size + header_bytes
    if header_end + payload_bytes + DIGEST_BYTES != len(data):
        raise corrupt(revision, "its lengths do not add up")
    try:
        header = json.loads(data[_PREFIX.size : header_end])
        if not isinstance(header, dict) or header.keys() != {"kind", "prev", "event"}:
            raise ValueError("its header has unknown or missing fields")
        if prev_hash is not None and header["prev"] != prev_hash:
            raise ValueError("it does not follow the entry before it, so one of them was moved, replaced or removed")
        if header["kind"] not in EVENTS:
            raise ValueError(f"its kind {header['kind']!r} is unknown")
        payload = BytesIO(data[header_end:-DIGEST_BYTES])
        event = from_json(header["event"], EVENTS[header["kind"]], "event", payload, schema)
        if payload.read(1):
            raise ValueError("its payload is longer than its fields")
        if revision is not None and event.revision != revision:
            raise ValueError(f"it holds revision {event.revision}")
    except (ValueError, TypeError, RecursionError, ErrataError) as error:
        raise corrupt(revision, str(error)) from error
    assert isinstance(event, Event)
    return event, entry_hash


@dataclass(frozen=True, slots=True)
class Parts:
    """What an entry is put together of. `schema` as it stands in the prefix, with the mark of a secret."""

    schema: int
    header: bytes
    payload: bytes
    hash: str


def take_apart(data: bytes) -> Parts:
    """The parts of an entry that is verified."""
    _, schema, header_bytes, _ = _PREFIX.unpack_from(data)
    end = _PREFIX.size + header_bytes
    return Parts(schema, data[_PREFIX.size : end], data[end:-DIGEST_BYTES], closing_hash(data))


def assemble(parts: Parts) -> bytes:
    """The entry again. Raises ValueError for parts that no entry has; whether the hash is right is for `decode`."""
    try:
        prefix = _PREFIX.pack(_MAGIC, parts.schema, len(parts.header), len(parts.payload))
    except StructError as error:
        raise ValueError(f"its schema {parts.schema!r} never existed") from error
    return b"".join((prefix, parts.header, parts.payload, bytes.fromhex(parts.hash)))


def closing_hash(data: bytes) -> str:
    """The hash that an entry ends with, unverified: for an entry that was encoded here."""
    return data[-DIGEST_BYTES:].hex()


def hash_before(data: bytes, revision: int, seal: Seal = PLAIN) -> str:
    """The hash that an entry, which is verified, names as that of the one before it."""
    decode(data, None, revision, seal)
    header_bytes = _PREFIX.unpack_from(data)[2]
    prev = json.loads(data[_PREFIX.size : _PREFIX.size + header_bytes])["prev"]
    return str(prev)


def corrupt(revision: int | None, why: str) -> StoreCorrupt:
    """The error for an entry that is not what was written, with what to do."""
    which = "An entry" if revision is None else f"Entry {revision}"
    return StoreCorrupt(
        f"{which} of the log is not what was written: {why}. Nothing from it on is applied. Keep a copy of the log as "
        f"it is, and restore it from a backup or from a replica whose log is whole.",
        revision=revision,
    )


def _unseal(data: bytes, revision: int | None, seal: Seal) -> tuple[str, int, int, int]:
    """Entry hash, schema, header's and payload's length of an entry whose closing hash is right and schema known."""
    if len(data) < _PREFIX.size + DIGEST_BYTES:
        raise corrupt(revision, f"it is cut short, to {len(data)} bytes")
    magic, marked_schema, header_bytes, payload_bytes = _PREFIX.unpack_from(data)
    schema, keyed = marked_schema & ~_KEYED, bool(marked_schema & _KEYED)
    if magic != _MAGIC or not seal.fits(memoryview(data)[:-DIGEST_BYTES], data[-DIGEST_BYTES:]):
        why = "its bytes do not match its hash"
        if keyed and not seal.keyed:
            why += ", or it was closed with a secret: set ERRATA_LOG_SECRET"
        elif seal.keyed and not keyed:
            why += ", for it was not closed with this server's secret. A log from before the secret is copied under it "
            why += "by `errata store migrate`"
        elif keyed:
            why += ", or it was closed with another secret than ERRATA_LOG_SECRET"
        raise corrupt(revision, why)
    if keyed != seal.keyed:
        raise corrupt(revision, "it says that it was closed in another way than it was")
    if schema > SCHEMA:
        raise StoreCorrupt(
            f"Entry {'?' if revision is None else revision} of the log was written by a newer version of Errata "
            f"(schema {schema}; this version reads up to {SCHEMA}): run that version, or a newer one, on this log.",
            revision=revision,
            schema=schema,
        )
    if schema < 1:
        raise corrupt(revision, f"its schema {schema} never existed")
    return closing_hash(data), schema, header_bytes, payload_bytes
