"""Maintenance of a whole log: check, copy, trim. Serves operators' commands; knows no server and no model."""

from collections.abc import Callable
from itertools import islice

from app.domain.errors import InvalidRequest, StoreCorrupt
from app.domain.ledger import Ledger
from app.domain.snapshot import records_of
from app.store.base import Log
from app.store.codec import GENESIS, encode
from app.store.snapshots import Manifest, ids, load, manifest_of, restore, save

HITS_PREFIX = "hits-"
"""Prefix of the blob names under which servers keep their hit counts beside the log."""
Advance = Callable[[], object]
"""Progress callback, called once per entry."""


def fold(log: Log) -> tuple[Ledger, str]:
    """Ledger and hash at a log's head, folded from its newest intact snapshot on."""
    ledger, last = restore(log)
    for event, entry_hash in log.follow(ledger.revision, last):
        ledger.apply(event)
        last = entry_hash
    return ledger, last


def check(log: Log, advance: Advance = lambda: None) -> tuple[Ledger, str, list[Manifest]]:
    """Reads every entry and snapshot, and compares each snapshot with the fold of the entries before it.

    Raises StoreCorrupt at the first damage. -> ledger and hash at the head, and snapshots, oldest first. For a trimmed
    log the fold begins at the oldest snapshot.
    """
    snapshots = sorted((manifest_of(log, each) for each in ids(log)), key=lambda manifest: manifest.revision)
    first = log.first()
    ledger = Ledger() if first == 1 else None
    last = log.hash_of(first - 1)
    for event, entry_hash in log.follow(first - 1, last):
        if ledger is not None:
            ledger.apply(event)
        last = entry_hash
        for manifest in snapshots:
            if manifest.revision == event.revision:
                ledger = _compared(log, manifest, entry_hash, ledger)
        advance()
    outside = [manifest.id for manifest in snapshots if not first <= manifest.revision <= log.head()]
    if outside:
        raise StoreCorrupt(f"The log holds entries {first} to {log.head()}; the snapshots {outside} are of others.")
    if ledger is None:
        raise StoreCorrupt(f"The log begins at revision {first}, and there is no snapshot of earlier revisions.")
    return ledger, last, snapshots


def _compared(log: Log, manifest: Manifest, entry_hash: str, ledger: Ledger | None) -> Ledger:
    loaded = load(log, manifest)
    if manifest.hash != entry_hash:
        raise StoreCorrupt(f"The snapshot {manifest.id} belongs to another log: its hash is not that of the entry.")
    if ledger is not None and list(records_of(loaded)) != list(records_of(ledger)):
        raise StoreCorrupt(f"The snapshot {manifest.id} does not hold what the log's entries make.")
    return loaded


def copy(old: Log, new: Log, advance: Advance = lambda: None) -> tuple[int, bool]:
    """Fills an empty log with another's entries and snapshots. -> the head, and whether the hashes are equal.

    They are, unless the two logs have different seals. Raises InvalidRequest for a log that is not empty.
    """
    if new.head():
        raise InvalidRequest(f"{new.url} holds {new.head()} events already: name an empty store.")
    first = old.first()
    last, copied = old.hash_of(first - 1), GENESIS
    for event, entry_hash in old.follow(first - 1, last):
        if event.revision == first > 1:
            new.begin(first, encode(event, last, new.seal))
            copied = new.hash_of(first)
        else:
            copied = new.append(event)
        last = entry_hash
        advance()
    for name in old.names():
        if name.startswith(HITS_PREFIX):  # hit counts are copied too
            new.put(name, old.get(name) or b"")
    same = last == copied
    if same:
        for snapshot_id in ids(old):
            _copy_snapshot(old, new, manifest_of(old, snapshot_id))
    elif first > 1:
        ledger, _ = fold(old)
        save(new, ledger.revision, copied, records_of(ledger), at_s=0.0)
    return new.head(), same


def _copy_snapshot(old: Log, new: Log, manifest: Manifest) -> None:
    load(old, manifest)
    for name in (*(chunk.name for chunk in manifest.chunks), manifest.id):
        new.put(name, old.get(name) or b"")


def write_snapshot(old: Log, new: Log, at_s: float) -> Manifest:
    """Fills an empty log with a snapshot of another at its head, and with the one entry that the snapshot stands
    for."""
    ledger, _ = fold(old)
    if not ledger.revision:
        raise InvalidRequest(f"{old.url} is empty: there is nothing to take a snapshot of.")
    (event,) = islice(old.read(after=ledger.revision - 1), 1)
    new.begin(ledger.revision, encode(event, old.hash_of(ledger.revision - 1), new.seal))
    return save(new, ledger.revision, new.hash_of(ledger.revision), records_of(ledger), at_s)


def trim(log: Log, archive: Log, advance: Advance = lambda: None) -> tuple[int, int]:
    """Deletes entries that the oldest snapshot covers and an archive holds. -> the first revision before and after.

    The whole log is checked first. Raises InvalidRequest without a snapshot or if the archive lacks entries.
    """
    _, _, snapshots = check(log, advance)
    if not snapshots:
        raise InvalidRequest(f"{log.url} has no snapshot: take one first with `errata snapshot`.")
    before, oldest = log.first(), snapshots[0]
    if archive.first() > before or archive.head() < oldest.revision:
        raise InvalidRequest(
            f"The archive holds entries {archive.first()} to {archive.head()}, not all from {before} to "
            f"{oldest.revision}: make it anew with `errata store export`."
        )
    last = archive.hash_of(archive.first() - 1)
    for event, entry_hash in archive.follow(archive.first() - 1, last):
        if event.revision == oldest.revision and entry_hash != oldest.hash:
            raise InvalidRequest("The archive belongs to another log: make a new one with `errata store export`.")
    log.trim(oldest.revision)
    return before, log.first()
