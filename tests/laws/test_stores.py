"""The laws of every log; `durable` decides which apply."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidRequest, LostRace, StoreCorrupt
from app.domain.events import EVENTS
from app.store.chain import Chain
from app.store.codec import GENESIS, decode, encode
from tests.domain.samples import committed, rolled_back
from tests.domain.strategies import numbers, origins, own_fields
from tests.laws.stores import SAMPLES, filled


def reads_corrupt(store, after=0):
    """True if reading the log raises StoreCorrupt after it has returned only events that were written."""
    log = store.open()
    given_out, message = [], None
    try:
        given_out.extend(event for event in log.read(after))
    except StoreCorrupt as error:
        message = error.message
    finally:
        log.close()
    assert given_out == SAMPLES[after : after + len(given_out)]
    assert message is None or "restore" in message
    return message is not None


def test_revisions_are_gapless_and_read_back_in_order(store):
    log = store.open()
    assert (log.head(), list(log.read())) == (0, [])
    for event in SAMPLES:
        log.append(event)
        assert log.head() == event.revision
    assert list(log.read()) == SAMPLES
    log.close()


def test_read_begins_after_any_revision(store):
    log = filled(store)
    for after in range(len(SAMPLES) + 1):
        assert list(log.read(after)) == SAMPLES[after:]
    log.close()


def test_read_after_a_revision_that_the_log_does_not_hold_is_refused(store):
    log = filled(store)
    with pytest.raises(StoreCorrupt, match=r"Entry 7 .* holds 1 to 6"):
        list(log.read(7))
    log.close()


def test_a_lost_race_is_refused_and_writes_nothing(store):
    log = filled(store)
    before = store.entries()
    for revision in (1, 6, 8, 100):
        with pytest.raises(LostRace) as error:
            log.append(rolled_back(revision, "a"))
        assert error.value.details["head"] == 6
    assert (log.head(), store.entries()) == (6, before)
    log.append(rolled_back(7, "a"))
    log.close()


def test_reopened_it_gives_the_same_events(store):
    log = filled(store)
    if not log.durable:
        pytest.skip("not durable: its events end with it")
    log.close()
    again = store.open()
    assert (again.head(), list(again.read())) == (6, SAMPLES)
    again.append(rolled_back(7, "a"))
    assert [event.revision for event in again.read(5)] == [6, 7]
    again.close()


def test_every_handle_sees_what_another_appended(store):
    one, other = store.open(), store.open()
    for event in SAMPLES:
        one.append(event)
        one, other = other, one
    assert list(one.read()) == list(other.read()) == SAMPLES
    one.close()
    other.close()


def test_of_racing_writers_exactly_one_wins_each_revision(store):
    last, writers = 24, 4
    won = {name: [] for name in range(writers)}
    failures = []
    start = threading.Barrier(writers)

    def write(name):
        log = store.open()
        try:
            start.wait()
            while (revision := log.head() + 1) <= last:
                try:
                    log.append(committed(revision, f"{name}-{revision}"))
                    won[name].append(revision)
                except LostRace:
                    continue
        except BaseException as error:  # a thread's error would pass unseen
            failures.append(error)
        finally:
            log.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in won]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    log = store.open()
    winners = {event.revision: event.edit.id for event in log.read()}
    log.close()
    assert winners == {revision: f"{name}-{revision}" for name, revisions in won.items() for revision in revisions}
    assert sorted(revision for revisions in won.values() for revision in revisions) == sorted(winners)
    assert max(winners) >= last


def test_the_payload_cap_is_the_callers_error_and_writes_nothing(tmp_path, store):
    store = type(store)(tmp_path, Chain(max_payload_bytes=4096))
    log = store.open()
    with pytest.raises(InvalidRequest, match="above its cap of 4096"):
        log.append(committed(1, tensors=bytes(4096)))
    assert (log.head(), store.entries()) == (0, [])
    log.append(committed(1, tensors=bytes(2048)))
    log.close()


# -- every event comes back as it was


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_every_kind_of_event_comes_back_as_it_was(store, kind):
    log = store.open()

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(at_s=numbers, origin=origins, own=st.fixed_dictionaries(own_fields[kind]))
    def comes_back(at_s, origin, own):
        event = kind(revision=log.head() + 1, at_s=at_s, origin=origin, **own)
        log.append(event)
        (again,) = log.read(event.revision - 1)
        assert again == event
        assert encode(again, GENESIS) == encode(event, GENESIS)  # == takes 1 for 1.0 and True; bytes do not

    comes_back()
    log.close()


# -- damage is seen


def test_every_flipped_byte_is_detected(store):
    filled(store).close()
    entries = store.entries()
    for index in (0, 4, 5):
        for offset in range(len(entries[index])):
            damaged = bytearray(entries[index])
            damaged[offset] ^= 0x01 << offset % 8
            with pytest.raises(StoreCorrupt, match=f"Entry {index + 1} "):
                decode(bytes(damaged), None, index + 1)
            if offset % 4 == 0:
                store.rewrite([*entries[:index], bytes(damaged), *entries[index + 1 :]])
                assert reads_corrupt(store)
                assert index + 1 == len(entries) or reads_corrupt(store, after=index + 1)
    store.rewrite(entries)
    assert not reads_corrupt(store)


def test_every_truncation_is_detected(store):
    filled(store).close()
    entries = store.entries()
    for index in (0, 4, 5):
        for length in range(len(entries[index])):
            with pytest.raises(StoreCorrupt, match=f"Entry {index + 1} "):
                decode(entries[index][:length], None, index + 1)
            if length % 4 == 0:
                store.rewrite([*entries[:index], entries[index][:length], *entries[index + 1 :]])
                assert reads_corrupt(store)
    with pytest.raises(StoreCorrupt):
        decode(entries[0] + b"\x00", None, 1)


def test_swapped_entries_are_detected(store):
    filled(store).close()
    entries = store.entries()
    for index in range(len(entries) - 1):
        swapped = list(entries)
        swapped[index : index + 2] = reversed(entries[index : index + 2])
        store.rewrite(swapped)
        assert reads_corrupt(store)


def test_a_dropped_entry_is_detected(store):
    """Except the last: nothing follows it that could tell."""
    filled(store).close()
    entries = store.entries()
    for index in range(len(entries) - 1):
        store.rewrite(entries[:index] + entries[index + 1 :])
        assert reads_corrupt(store)


def test_an_entry_written_anew_is_detected_by_the_one_after_it(store):
    filled(store).close()
    entries = store.entries()
    forged = encode(committed(2, "b", target="Forged"), decode(entries[0], GENESIS, 1)[1])
    store.rewrite([entries[0], forged, *entries[2:]])
    log = store.open()
    with pytest.raises(StoreCorrupt, match="Entry 3 "):
        list(log.read())
    log.close()


def test_nothing_is_appended_onto_a_damaged_head(store):
    filled(store).close()
    entries = store.entries()
    store.rewrite([*entries[:-1], entries[-1][:-1] + b"\x00"])
    log = store.open()
    with pytest.raises(StoreCorrupt, match="Entry 6 "):
        log.append(rolled_back(7, "a"))
    assert log.head() == 6
    log.close()
