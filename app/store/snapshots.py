"""Snapshots beside the log: a ledger's records in chunks, then a manifest, written last.

    chunk     records: header length (4 bytes), payload length (8 bytes), header (JSON: kind, record), payload
    manifest  magic "ERRASN", schema (2 bytes; the highest bit marks a keyed seal), JSON, hash (SHA-256 or HMAC)

The manifest names its log entry by revision and hash, and each chunk by SHA-256, so that one closing hash covers
everything. A snapshot is a cache: while the log is complete, a damaged snapshot only costs time.
"""

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from struct import error as StructError
from typing import Any

from app.domain.errors import ErrataError, StoreCorrupt
from app.domain.ledger import Ledger
from app.domain.snapshot import RECORDS, EditRecord, Record, ledger_of
from app.store.base import Log
from app.store.codec import GENESIS
from app.store.fields import from_json, to_json
from app.store.seal import DIGEST_BYTES

SCHEMA = 1
CHUNK_BYTES = 4 * 2**20
"""Chunk size in bytes; a chunk ends with the record that reaches it. Redis values may be far larger, and a chunk is
written quickly."""
KEEP = 2
"""Number of snapshots kept: if the newest is damaged, the one before it remains."""

_MAGIC = b"ERRASN"
_PREFIX = Struct(">6sH")
_RECORD = Struct(">IQ")
_KEYED = 0x8000
_ID = re.compile(r"snapshot-(\d{12})-[0-9a-f]{8}")
_KINDS = {kind: name for name, kind in RECORDS.items()}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Description of a snapshot. `hash` is the hash of the log entry at `revision`."""

    id: str
    revision: int
    hash: str
    at_s: float
    edits: int
    model_fingerprints: tuple[str, ...]
    """Fingerprints of the edits that may still answer: a restoring server must run these models."""
    chunks: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        return sum(chunk.bytes for chunk in self.chunks)


def save(log: Log, revision: int, entry_hash: str, records: Iterable[Record], at_s: float) -> Manifest:
    """Write a snapshot, verify each chunk, and drop outdated ones. A snapshot exists only once its manifest is
    written."""
    snapshot_id = f"snapshot-{revision:012d}-{uuid.uuid4().hex[:8]}"
    chunks: list[Chunk] = []
    edits, fingerprints = 0, set()

    def counted() -> Iterator[Record]:
        nonlocal edits
        for record in records:
            if isinstance(record, EditRecord):
                edits += 1
                if not record.rolled_back:
                    fingerprints.add(record.edit.model_fingerprint)
            yield record

    for number, data in enumerate(_chunked(counted())):
        name = f"{snapshot_id}/{number}"
        log.put(name, data)
        if log.get(name) != data:
            raise StoreCorrupt(f"{log.url} returned other bytes than were just written: check its disk.")
        chunks.append(Chunk(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    manifest = Manifest(
        id=snapshot_id,
        revision=revision,
        hash=entry_hash,
        at_s=at_s,
        edits=edits,
        model_fingerprints=tuple(sorted(fingerprints)),
        chunks=tuple(chunks),
    )
    prefix = _PREFIX.pack(_MAGIC, SCHEMA | _KEYED if log.seal.keyed else SCHEMA)
    body = prefix + json.dumps(to_json(manifest, Manifest, "manifest", [])).encode()
    log.put(snapshot_id, body + log.seal.digest(body))
    _prune(log)
    return manifest


def ids(log: Log) -> list[str]:
    """Ids of the snapshots beside a log, newest first, including damaged ones."""
    return sorted((name for name in log.names() if _ID.fullmatch(name)), reverse=True)


def manifest_of(log: Log, snapshot_id: str) -> Manifest:
    """The manifest of a snapshot. Raises StoreCorrupt if it is damaged."""
    data = log.get(snapshot_id) or b""
    try:
        magic, schema = _PREFIX.unpack_from(data)
        body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if magic != _MAGIC or not log.seal.matches(body, digest):
            raise ValueError("its bytes do not match its hash, or it was closed with another secret")
        if (schema & ~_KEYED) != SCHEMA:
            raise ValueError(f"its schema {schema & ~_KEYED} is not {SCHEMA}, the one that this version reads")
        manifest = from_json(json.loads(body[_PREFIX.size :]), Manifest, "manifest", BytesIO())
        if manifest.id != snapshot_id or any(not chunk.name.startswith(f"{snapshot_id}/") for chunk in manifest.chunks):
            raise ValueError("it is the manifest of another snapshot")
    except (ValueError, StructError, RecursionError) as error:
        raise _corrupt(snapshot_id, str(error)) from error
    assert isinstance(manifest, Manifest)
    return manifest


def manifests(log: Log) -> list[Manifest]:
    """Readable manifests, newest first."""
    manifests_read: list[Manifest] = []
    for snapshot_id in ids(log):
        try:
            manifests_read.append(manifest_of(log, snapshot_id))
        except StoreCorrupt as error:
            _log.warning("%s", error.message)
    return manifests_read


def load(log: Log, manifest: Manifest) -> Ledger:
    """The ledger of a snapshot. Raises StoreCorrupt for any changed byte."""
    try:
        return ledger_of(manifest.revision, _records(log, manifest))
    except (ValueError, TypeError, KeyError, StructError, RecursionError, ErrataError) as error:
        raise _corrupt(manifest.id, str(error)) from error


def restore(log: Log) -> tuple[Ledger, str]:
    """Ledger and entry hash of the newest intact snapshot of this log; an empty ledger if a complete log has none.

    Raises StoreCorrupt if the log was trimmed and no snapshot is intact.
    """
    for snapshot_id in ids(log):
        try:
            manifest = manifest_of(log, snapshot_id)
            if log.hash_of(manifest.revision) != manifest.hash:
                raise _corrupt(snapshot_id, "it belongs to another log")
            return load(log, manifest), manifest.hash
        except StoreCorrupt as error:
            _log.warning("Skipping a snapshot. %s", error.message)
    if log.first() > 1:
        raise StoreCorrupt(
            f"The log begins at revision {log.first()}, and no snapshot of earlier revisions is intact: restore the "
            f"store from a backup, or import the archive that was made when the log was trimmed."
        )
    return Ledger(), GENESIS


def _prune(log: Log) -> None:
    kept = ids(log)[:KEEP]
    oldest = min(kept)
    gone = [name for name in log.names() if _ID.match(name) and name.partition("/")[0] < oldest]
    log.drop(sorted(gone))  # manifests sort before their chunks


def _chunked(records: Iterable[Record]) -> Iterator[bytes]:
    chunk = bytearray()
    for record in records:
        blobs: list[bytes] = []
        fields = to_json(record, type(record), "record", blobs)
        header = json.dumps(
            {"kind": _KINDS[type(record)], "record": fields}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
        chunk += _RECORD.pack(len(header), sum(map(len, blobs))) + header + b"".join(blobs)
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _records(log: Log, manifest: Manifest) -> Iterator[Record]:
    for chunk in manifest.chunks:
        data = log.get(chunk.name)
        if data is None or len(data) != chunk.bytes or hashlib.sha256(data).hexdigest() != chunk.sha256:
            raise ValueError(f"its chunk {chunk.name} is {'missing' if data is None else 'not what was written'}")
        at = 0
        while at < len(data):
            header_bytes, payload_bytes = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            header: Any = json.loads(data[at : at + header_bytes])
            at += header_bytes
            payload = BytesIO(data[at : at + payload_bytes])
            at += payload_bytes
            yield from_json(header["record"], RECORDS[header["kind"]], "record", payload)


def _corrupt(snapshot_id: str, why: str) -> StoreCorrupt:
    return StoreCorrupt(f"The snapshot {snapshot_id} is not what was written: {why}.", snapshot=snapshot_id)
