"""Encodes an event as the bytes of one log entry and decodes it. Knows the layout, not where entries are kept.

Layout: prefix | header | payload | hash
    prefix   magic "ERRATA", schema (2 bytes; the highest bit marks a keyed seal), header length (4 bytes),
             payload length (8 bytes), big endian
    header   JSON in UTF-8: kind, prev (hash of the previous entry, in hex) and the event's fields
    payload  the `bytes` fields (an edit's tensors), raw, in the order in which the header names their lengths
    hash     SHA-256 of everything before it, or HMAC-SHA-256 under a secret; `prev` links all entries into one chain
The magic, the position of the schema and the closing hash are the same in every schema, so that an older Errata can
tell a newer entry from a damaged one. A new event field needs a new schema, named in its metadata, and a default for
older entries.
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

SCHEMA = 7
"""Newest schema. Each event is written in the oldest schema that can hold it, so that older versions can go on
reading."""
_SINCE = {
    "edits_refitted": 2,
    "edit_retuned": 3,
    "probes_set": 3,
    **dict.fromkeys(("policy_set", "edit_proposed", "proposal_revised", "proposal_returned"), 5),
    **dict.fromkeys(("proposal_withdrawn", "proposal_expired"), 5),
    "namespace_set": 6,
    "webhook_set": 6,
    "webhook_removed": 6,
}
GENESIS = "0" * 64
"""Hash that the first entry names as its predecessor's."""

_MAGIC = b"ERRATA"
_PREFIX = Struct(">6sHIQ")
_KEYED = 0x8000


def encode(event: Event, prev_hash: str, seal: Seal = PLAIN) -> bytes:
    """Encodes one log entry. Raises InvalidRequest for a text or JSON value that cannot be kept exactly."""
    if EVENTS.get(event.kind) is not type(event):
        raise TypeError(f"{type(event).__name__} is not a registered event")
    blobs: list[bytes] = []
    schema = max(_SINCE.get(event.kind, 1), schema_of(event), schema_of(event.origin))
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
            f"A text holds half of a surrogate pair ({text[error.start]!a}), which is not a character: remove it."
        ) from error
    except ValueError as error:
        raise InvalidRequest(f"A number has too many digits to be stored ({error}): use a string.") from error
    payload_bytes = sum(map(len, blobs))
    if seal.keyed:
        schema |= _KEYED
    body = b"".join((_PREFIX.pack(_MAGIC, schema, len(header), payload_bytes), header, *blobs))
    return body + seal.digest(body)


def decode(data: bytes, prev_hash: str | None, revision: int | None, seal: Seal = PLAIN) -> tuple[Event, str]:
    """Decodes an entry into its event and its hash. None skips the check of `prev_hash` or `revision`.

    Raises StoreCorrupt for any changed byte and for an entry of a newer schema.
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
    """Parts of an entry. `schema` is the prefix's number, including the bit for a keyed seal."""

    schema: int
    header: bytes
    payload: bytes
    hash: str


def disassemble(data: bytes) -> Parts:
    """Splits a verified entry into its parts."""
    _, schema, header_bytes, _ = _PREFIX.unpack_from(data)
    end = _PREFIX.size + header_bytes
    return Parts(schema, data[_PREFIX.size : end], data[end:-DIGEST_BYTES], closing_hash(data))


def assemble(parts: Parts) -> bytes:
    """The inverse of `disassemble`. Raises ValueError for parts that no entry has; `decode` checks the hash."""
    try:
        prefix = _PREFIX.pack(_MAGIC, parts.schema, len(parts.header), len(parts.payload))
    except StructError as error:
        raise ValueError(f"its schema {parts.schema!r} never existed") from error
    return b"".join((prefix, parts.header, parts.payload, bytes.fromhex(parts.hash)))


def closing_hash(data: bytes) -> str:
    """The closing hash of an entry, unverified: for entries that were encoded or verified here."""
    return data[-DIGEST_BYTES:].hex()


def hash_before(data: bytes, revision: int, seal: Seal = PLAIN) -> str:
    """The predecessor's hash that an entry names; the entry is verified first."""
    decode(data, None, revision, seal)
    header_bytes = _PREFIX.unpack_from(data)[2]
    prev = json.loads(data[_PREFIX.size : _PREFIX.size + header_bytes])["prev"]
    return str(prev)


def corrupt(revision: int | None, why: str) -> StoreCorrupt:
    """The error for a damaged entry, with the remedy."""
    which = "An entry" if revision is None else f"Entry {revision}"
    return StoreCorrupt(
        f"{which} of the log is not what was written: {why}. Nothing from it on is applied. Keep a copy of the log as "
        f"it is, and restore it from a backup or from a replica whose log is whole.",
        revision=revision,
    )


def _unseal(data: bytes, revision: int | None, seal: Seal) -> tuple[str, int, int, int]:
    """Checks an entry's closing hash and schema. Returns hash, schema, header length, payload length (bytes)."""
    if len(data) < _PREFIX.size + DIGEST_BYTES:
        raise corrupt(revision, f"it is cut short, to {len(data)} bytes")
    magic, flagged_schema, header_bytes, payload_bytes = _PREFIX.unpack_from(data)
    schema, keyed = flagged_schema & ~_KEYED, bool(flagged_schema & _KEYED)
    if magic != _MAGIC or not seal.matches(memoryview(data)[:-DIGEST_BYTES], data[-DIGEST_BYTES:]):
        why = "its bytes do not match its hash"
        if keyed and not seal.keyed:
            why += ", or it was closed with a secret: set ERRATA_LOG_SECRET"
        elif seal.keyed and not keyed:
            why += ", as it was not closed with this server's secret. A log from before the secret is copied under it "
            why += "by `errata store migrate`"
        elif keyed:
            why += ", or it was closed with another secret than ERRATA_LOG_SECRET"
        raise corrupt(revision, why)
    if keyed != seal.keyed:
        raise corrupt(revision, "its prefix names another kind of seal than the one that closes it")
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
