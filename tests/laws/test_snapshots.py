"""The laws of snapshots, beside every store: whole or not there, of this log, and never less than the log itself."""

import json
from dataclasses import replace

import pytest

from app.domain.errors import InvalidRequest, StoreCorrupt
from app.domain.events import KeyCreated, Origin
from app.domain.snapshot import records_of
from app.store import snapshots, upkeep
from app.store.chain import Chain
from app.store.memory import MemoryLog
from app.store.seal import Seal
from tests.domain.samples import committed, rolled_back
from tests.laws.stores import SAMPLES, MemoryStore, filled

EVENTS = [
    *SAMPLES,
    KeyCreated(
        revision=7, at_s=7.0, origin=Origin(actor="root"), key_id="k", name="ci", role="editor", secret_sha256="ab"
    ),
    replace(
        committed(8, "d", prompt="Another?"), origin=Origin(actor="ann", idempotency_key="once", digest="d", key_id="k")
    ),
]


def parts(ledger):
    return ledger.revision, list(records_of(ledger))


def taken(log, at_s=1.0):
    ledger, last = upkeep.fold(log)
    return snapshots.save(log, ledger.revision, last, records_of(ledger), at_s)


def without_snapshots(log):
    """The ledger that the entries alone make."""
    bare = MemoryLog(Chain(seal=log.seal))
    for event in log.read():
        bare.append(event)
    return upkeep.fold(bare)


def test_what_starts_from_a_snapshot_knows_what_the_whole_log_tells(store):
    log = filled(store, EVENTS)
    folded, last = without_snapshots(log)
    manifest = taken(log)
    assert (manifest.revision, manifest.hash, manifest.edits) == (8, last, 4)
    assert manifest.model_fingerprints == ("model-1",)
    restored, restored_hash = snapshots.restore(log)
    assert (parts(restored), restored_hash) == (parts(folded), last)
    log.append(rolled_back(9, "d"))
    assert parts(upkeep.fold(log)[0]) == parts(without_snapshots(log)[0])
    log.close()


def test_many_chunks_are_as_one(store, monkeypatch):
    log = filled(store, EVENTS)
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 200)
    manifest = taken(log)
    assert len(manifest.chunks) > 3
    assert parts(snapshots.load(log, manifest)) == parts(without_snapshots(log)[0])
    log.close()


def test_only_the_newest_are_kept(store):
    log = filled(store, EVENTS[:5])
    made = []
    for event in EVENTS[5:]:
        log.append(event)
        made.append(taken(log))
    log.put("snapshot-000000000003-0000abcd/0", b"of one that was never finished")
    log.append(rolled_back(9, "d"))
    made.append(taken(log))
    kept = made[-1:-3:-1]
    assert snapshots.manifests(log) == kept
    names = {name for manifest in kept for name in (manifest.id, *(chunk.name for chunk in manifest.chunks))}
    assert set(log.names()) == names
    log.close()


def test_what_broke_off_before_its_manifest_is_no_snapshot(store):
    log = filled(store, EVENTS)

    class Full(Exception): ...

    def put(name, data):
        if "/" not in name:
            raise Full
        real(name, data)

    real, log.put = log.put, put
    with pytest.raises(Full):
        taken(log)
    assert log.names() != []
    assert snapshots.ids(log) == []
    assert parts(upkeep.fold(log)[0]) == parts(without_snapshots(log)[0])
    log.close()


@pytest.mark.parametrize("keyed", [False, True])
def test_every_flipped_or_cut_byte_is_detected_and_the_one_before_taken(tmp_path, store, keyed):
    store = type(store)(tmp_path, Chain(seal=Seal("kept from the store" if keyed else None)))
    log = filled(store, EVENTS[:6])
    older = taken(log)
    for event in EVENTS[6:]:
        log.append(event)
    newest = taken(log)
    for name in (newest.id, newest.chunks[0].name):
        data = log.get(name)
        for offset in range(0, len(data), 1 if isinstance(store, MemoryStore) else 61):
            damaged = bytearray(data)
            damaged[offset] ^= 1 << offset % 8
            for wrong in (bytes(damaged), data[:offset]):
                log.put(name, wrong)
                with pytest.raises(StoreCorrupt, match=newest.id):
                    snapshots.load(log, snapshots.manifest_of(log, newest.id))
        assert snapshots.restore(log)[0].revision == older.revision
        with pytest.raises(StoreCorrupt, match=newest.id):
            upkeep.check(log)
        log.put(name, data)
    assert snapshots.restore(log)[0].revision == newest.revision
    log.close()


def test_one_of_another_log_is_passed_over(store):
    log, other = filled(store, EVENTS), MemoryLog()
    for event in EVENTS:
        other.append(replace(event, at_s=99.0))
    foreign = taken(other)
    for name in other.names():
        log.put(name, other.get(name))
    assert parts(upkeep.fold(log)[0]) == parts(without_snapshots(log)[0])
    with pytest.raises(StoreCorrupt, match=f"{foreign.id} belongs to another log"):
        upkeep.check(log)
    log.close()


def test_one_that_holds_something_else_than_the_log_makes_is_found_by_the_check(store):
    log = filled(store, EVENTS)
    ledger, last = upkeep.fold(log)
    ledger.entry("b").rolled_back = False
    lying = snapshots.save(log, 8, last, records_of(ledger), 1.0)
    with pytest.raises(StoreCorrupt, match=f"{lying.id} does not hold what the log's entries make"):
        upkeep.check(log)
    log.close()


def test_a_newer_schema_is_told(store):
    log = filled(store)
    manifest = taken(log)
    body = log.get(manifest.id)[:-32]
    body = body[:6] + (2).to_bytes(2, "big") + body[8:]
    log.put(manifest.id, body + log.seal.digest(body))
    with pytest.raises(StoreCorrupt, match="schema 2 is not 1"):
        snapshots.manifest_of(log, manifest.id)
    log.close()


def test_a_manifest_cannot_name_what_belongs_to_others(store):
    log = filled(store)
    log.put("else", b"secret")
    manifest = taken(log)
    data = log.get(manifest.id)
    fields = json.loads(data[8:-32])
    fields["chunks"][0]["name"] = "else"
    body = data[:8] + json.dumps(fields).encode()
    log.put(manifest.id, body + log.seal.digest(body))
    with pytest.raises(StoreCorrupt, match="of another snapshot"):
        snapshots.manifest_of(log, manifest.id)
    log.close()


# -- trimming


def archived(log):
    archive = MemoryLog()
    upkeep.copy(log, archive)
    return archive


def test_a_log_is_trimmed_below_its_oldest_snapshot_and_loses_nothing(store):
    log = filled(store, EVENTS[:5])
    taken(log)
    log.append(EVENTS[5])
    taken(log)
    for event in EVENTS[6:]:
        log.append(event)
    whole = parts(without_snapshots(log)[0])
    assert upkeep.trim(log, archived(log)) == (1, 5)
    assert (log.first(), log.head()) == (5, 8)
    assert parts(upkeep.fold(log)[0]) == whole
    ledger, last, found = upkeep.check(log)
    assert (parts(ledger), last, len(found)) == (whole, log.hash_of(8), 2)
    copy = archived(log)
    assert (copy.first(), parts(upkeep.fold(copy)[0]), copy.hash_of(8)) == (5, whole, last)
    log.append(rolled_back(9, "d"))
    taken(log)
    assert upkeep.trim(log, archived(log)) == (5, 6)
    log.close()


def test_nothing_is_trimmed_that_is_not_kept_elsewhere(store):
    log = filled(store, EVENTS)
    with pytest.raises(InvalidRequest, match="no snapshot"):
        upkeep.trim(log, archived(log))
    taken(log)
    short, other = MemoryLog(), MemoryLog()
    for event in EVENTS[:7]:
        short.append(event)
    for event in EVENTS:
        other.append(replace(event, at_s=99.0))
    with pytest.raises(InvalidRequest, match="not all from 1 to 8"):
        upkeep.trim(log, short)
    with pytest.raises(InvalidRequest, match="another log"):
        upkeep.trim(log, other)
    damaged, store = archived(log), MemoryStore(None)
    store.log = damaged
    first, second, third, *others = store.entries()
    store.rewrite([first, second, third[:-1] + b"\x00", *others])
    with pytest.raises(StoreCorrupt, match="Entry 3"):
        upkeep.trim(log, damaged)
    assert (log.first(), log.head()) == (1, 8)
    log.close()


def test_a_trimmed_log_without_a_whole_snapshot_is_refused(store):
    log = filled(store, EVENTS)
    manifest = taken(log)
    upkeep.trim(log, archived(log))
    log.put(manifest.chunks[0].name, b"gone")
    with pytest.raises(StoreCorrupt, match="begins at revision 8, and no snapshot"):
        upkeep.fold(log)
    log.drop(log.names())
    with pytest.raises(StoreCorrupt, match="no snapshot"):
        upkeep.check(log)
    log.close()


def test_a_trimmed_log_is_copied_under_another_secret(store):
    log = filled(store, EVENTS)
    taken(log)
    upkeep.trim(log, archived(log))
    sealed = MemoryLog(Chain(seal=Seal("kept from the store")))
    assert upkeep.copy(log, sealed) == (8, False)
    assert parts(upkeep.fold(sealed)[0]) == parts(upkeep.fold(log)[0])
    upkeep.check(sealed)
    log.close()


def test_a_snapshot_in_a_file_of_its_own_is_a_log_that_begins_with_it(store):
    log, file = filled(store, EVENTS), MemoryLog()
    upkeep.write_snapshot(log, file, at_s=1.0)
    assert (file.first(), file.head(), file.hash_of(8)) == (8, 8, log.hash_of(8))
    assert parts(upkeep.fold(file)[0]) == parts(upkeep.fold(log)[0])
    file.append(rolled_back(9, "d"))
    with pytest.raises(InvalidRequest, match="empty"):
        upkeep.write_snapshot(MemoryLog(), MemoryLog(), at_s=1.0)
    log.close()
