"""The laws of every log, beyond appending and reading: trimmed, begun in its middle, with names beside it, sealed."""

import pytest

from app.domain.errors import LostRace, StoreCorrupt
from app.store.chain import DEFAULT_CHAIN, Chain
from app.store.codec import GENESIS, decode, encode
from app.store.memory import MemoryLog
from app.store.seal import Seal
from tests.domain.samples import committed, rolled_back
from tests.laws.stores import SAMPLES, filled

# -- a log that does not begin at 1


def test_a_trimmed_log_goes_on_where_it_was_cut(store):
    log = filled(store)
    hashes = [log.hash_of(revision) for revision in range(7)]
    log.trim(1)
    assert (log.first(), log.head()) == (1, 6)
    log.trim(4)
    assert (log.first(), log.head()) == (4, 6)
    assert list(log.read(3)) == SAMPLES[3:]
    assert [log.hash_of(revision) for revision in range(3, 7)] == hashes[3:]
    assert [entry_hash for _, entry_hash in log.follow(4, hashes[4])] == hashes[5:]
    for gone in (1, 2):
        with pytest.raises(StoreCorrupt, match=f"Entry {gone} .* holds 4 to 6"):
            log.hash_of(gone)
    with pytest.raises(StoreCorrupt, match=r"Entry 1 .* is missing"):
        list(log.read())
    log.append(rolled_back(7, "a"))
    log.trim(7)
    assert (log.first(), list(log.read(6))) == (7, [rolled_back(7, "a")])
    log.append(rolled_back(8, "b"))
    log.close()


def test_a_copy_of_a_trimmed_log_begins_with_its_first_entry_and_has_its_hashes(store):
    log, copy = filled(store), MemoryLog()
    log.trim(3)
    copy.begin(3, log.entry(3))
    for event in log.read(3):
        copy.append(event)
    assert (copy.first(), copy.head(), copy.hash_of(6)) == (3, 6, log.hash_of(6))
    log.close()


def test_only_an_empty_log_can_be_begun_and_only_with_a_whole_entry(tmp_path, store):
    entry = filled(store).entry(3)
    with pytest.raises(LostRace):
        store.open().begin(3, entry)
    assert store.open().first() == 1
    (tmp_path / "new").mkdir()
    new = type(store)(tmp_path / "new").open()
    for wrong in (entry[:-1], entry[:40] + b"x" + entry[41:]):
        with pytest.raises(StoreCorrupt):
            new.begin(3, wrong)
    with pytest.raises(StoreCorrupt):
        new.begin(4, entry)
    assert new.head() == 0
    new.begin(3, entry)
    assert (new.first(), new.head(), new.entry(3)) == (3, 3, entry)
    new.append(SAMPLES[3])
    new.close()


# -- beside the entries


def test_what_is_kept_under_a_name_is_found_until_it_is_dropped(store):
    log = filled(store)
    assert (log.names(), log.get("a")) == ([], None)
    log.put("a/1", bytes(range(256)) * 100)
    log.put("a", b"one")
    log.put("a", b"two")
    other = store.open()
    assert (sorted(other.names()), other.get("a"), len(other.get("a/1"))) == (["a", "a/1"], b"two", 25600)
    other.drop(["a", "unknown"])
    assert (log.names(), log.get("a")) == (["a/1"], None)
    assert list(log.read()) == SAMPLES
    log.close()
    other.close()


# -- a log that is closed with a secret


def test_with_a_secret_everything_holds_and_nobody_without_it_reads_or_writes(tmp_path, store):
    store = type(store)(tmp_path, Chain(seal=Seal("kept from the store")))
    filled(store).close()
    log = store.open()
    assert list(log.read()) == SAMPLES
    entries = store.entries()
    log.close()
    for chain, why in ((DEFAULT_CHAIN, "set ERRATA_LOG_SECRET"), (Chain(seal=Seal("a guess")), "another secret")):
        with pytest.raises(StoreCorrupt, match=why):
            decode(entries[0], GENESIS, 1, chain.seal)
    forged = encode(committed(6, "evil"), log_hash(entries[4]))
    store.rewrite([*entries[:5], forged])
    log = store.open()
    with pytest.raises(StoreCorrupt, match=r"Entry 6 .* not closed with this server's secret"):
        list(log.read())
    log.close()


def log_hash(entry):
    return entry[-32:].hex()
