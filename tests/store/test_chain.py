"""The rules of every log, on entries alone: revisions, the cap, the hashes, and the seal that closes them."""

import pytest

from app.domain.errors import InvalidRequest, LostRace, StoreCorrupt
from app.store.chain import Chain
from app.store.codec import GENESIS, decode, encode
from app.store.seal import Seal
from tests.domain.samples import committed

SEALED = Chain(seal=Seal("a secret"))


def entries(chain: Chain, count: int = 3) -> list[tuple[int, bytes]]:
    found, last = [], GENESIS
    for revision in range(1, count + 1):
        found.append((revision, chain.next_entry(committed(revision, f"e{revision}"), revision - 1, last)))
        last = chain.verified(found[-1][1], revision)
    return found


@pytest.mark.parametrize("revision", [1, 2, 4])
def test_an_event_of_another_revision_has_lost_the_race(revision: int) -> None:
    with pytest.raises(LostRace, match=f"Revision {revision} .* head is 2. .* append 3") as lost:
        Chain().next_entry(committed(revision), 2, GENESIS)
    assert lost.value.details == {"revision": revision, "head": 2}


def test_an_entry_may_take_as_much_as_the_cap_and_no_byte_more() -> None:
    event = committed(1)
    size = len(encode(event, GENESIS))
    assert Chain(max_payload_bytes=size).next_entry(event, 0, GENESIS) == encode(event, GENESIS)
    with pytest.raises(InvalidRequest, match=f"takes {size} bytes") as refused:
        Chain(max_payload_bytes=size - 1).next_entry(event, 0, GENESIS)
    assert refused.value.details == {"entry_bytes": size, "max_payload_bytes": size - 1}


def test_entries_are_closed_and_verified_with_the_chains_own_seal() -> None:
    sealed, plain = entries(SEALED), entries(Chain())
    assert SEALED.verified(sealed[0][1], 1) == decode(sealed[0][1], GENESIS, 1, SEALED.seal)[1]
    for reader, written in ((Chain(), sealed), (SEALED, plain), (Chain(seal=Seal("another")), sealed)):
        with pytest.raises(StoreCorrupt):
            reader.verified(written[0][1], 1)
        with pytest.raises(StoreCorrupt):
            list(reader.walk(written, 0, GENESIS))
    with pytest.raises(StoreCorrupt, match="Entry 2"):
        SEALED.verified(sealed[0][1], 2)


@pytest.mark.parametrize("chain", [Chain(), SEALED], ids=["plain", "sealed"])
def test_a_walk_gives_events_and_hashes_from_anywhere(chain: Chain) -> None:
    written = entries(chain)
    walked = list(chain.walk(written, 0, GENESIS))
    assert [event for event, _ in walked] == [committed(revision, f"e{revision}") for revision in (1, 2, 3)]
    assert [entry_hash for _, entry_hash in walked] == [chain.verified(entry, at) for at, entry in written]
    assert list(chain.walk(written[1:], 1, walked[0][1])) == walked[1:]


def test_a_gap_or_a_broken_link_ends_a_walk_at_the_entry_that_is_wrong() -> None:
    written = entries(Chain())
    walk = Chain().walk([written[0], written[2]], 0, GENESIS)
    assert next(walk)[0].revision == 1
    with pytest.raises(StoreCorrupt, match=r"Entry 2 .* is missing, and entry 3 follows entry 1") as gap:
        next(walk)
    assert gap.value.details == {"revision": 2}
    with pytest.raises(StoreCorrupt, match="does not follow the entry before it"):
        list(Chain().walk(written[1:], 1, GENESIS))
