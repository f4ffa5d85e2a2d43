"""The codec refuses malformed events and entries, and reads entries of every released schema for ever."""

import hashlib
import json
import math
from pathlib import Path
from struct import Struct

import pytest

from app.domain.errors import InvalidRequest, StoreCorrupt
from app.store.codec import GENESIS, SCHEMA, decode, encode
from tests.domain.samples import committed, switched

PREFIX = Struct(">6sHIQ")
RELEASED = Path(__file__).parent / "released"


def sealed(header: object, payload: bytes = b"", schema: int = 1, lengths: tuple[int, int] | None = None) -> bytes:
    """An entry with a right hash, whatever is in it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = PREFIX.pack(b"ERRATA", schema, *(lengths or (len(text), len(payload)))) + text + payload
    return body + hashlib.sha256(body).digest()


def header_of(entry: bytes) -> dict:
    length = PREFIX.unpack_from(entry)[2]
    return json.loads(entry[PREFIX.size : PREFIX.size + length])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": {"a": {"b": math.nan}}}, r"event\.edit\.request\.metadata\.a\.b` is nan"),
        ({"report": {"loss": math.inf}}, r"event\.edit\.report\.loss` is inf"),
        ({"target": "half \ud83e"}, "surrogate"),
        ({"metadata": {"n": 10**5000}}, "too many digits"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused(fields, message):
    with pytest.raises(InvalidRequest, match=message):
        encode(committed(1, **fields), GENESIS)


def test_nesting_is_bounded_and_its_bound_can_be_read():
    def nested(depth):
        return {"a": nested(depth - 1)} if depth else {}

    event = committed(1, metadata=nested(62))
    assert decode(encode(event, GENESIS), GENESIS, 1)[0] == event
    with pytest.raises(InvalidRequest, match="levels deep"):
        encode(committed(1, metadata=nested(500)), GENESIS)


@pytest.mark.parametrize("fields", [{"seed": 1.5}, {"force": 1}, {"aliases": ["Ada"]}, {"metadata": {"a": object()}}])
def test_a_field_of_another_type_is_a_bug_and_never_written(fields):
    with pytest.raises(TypeError, match=r"event\.edit\.request"):
        encode(committed(1, **fields), GENESIS)


def test_tuples_in_json_values_come_back_as_lists():
    event, _ = decode(encode(committed(1, metadata={"a": (1, 2)}), GENESIS), GENESIS, 1)
    assert event.edit.request.metadata == {"a": [1, 2]}


def test_an_entry_of_a_newer_schema_says_so():
    with pytest.raises(StoreCorrupt, match=rf"Entry 7 .* newer version of Errata \(schema {SCHEMA + 1}"):
        decode(sealed({"anything": 1}, schema=SCHEMA + 1), GENESIS, 7)


def test_an_entry_after_another_one_or_of_another_revision_is_refused():
    entry = encode(switched(3, None, False), "ab" * 32)
    assert decode(entry, "ab" * 32, 3)[0] == decode(entry, None, None)[0] == switched(3, None, False)
    with pytest.raises(StoreCorrupt, match="does not follow"):
        decode(entry, "cd" * 32, 3)
    with pytest.raises(StoreCorrupt, match="holds revision 3"):
        decode(entry, "ab" * 32, 4)


def test_the_hash_is_that_of_the_whole_entry():
    entry = encode(switched(1, None, False), GENESIS)
    assert decode(entry, GENESIS, 1)[1] == hashlib.sha256(entry[:-32]).hexdigest() == entry[-32:].hex()


GOOD = header_of(encode(switched(1, None, False), GENESIS))
WITH_EDIT = header_of(encode(committed(1, tensors=b"12345678"), GENESIS))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (sealed({**GOOD, "extra": 1}), "unknown or missing fields"),
        (sealed({**GOOD, "event": {**GOOD["event"], "note": ""}}), r"event has unknown or missing fields: \['note'\]"),
        (sealed({**GOOD, "event": {"revision": 1}}), "unknown or missing fields"),
        (sealed({**GOOD, "event": []}), "unknown or missing fields: list"),
        (sealed({**GOOD, "kind": "edit_vanished"}), "kind 'edit_vanished' is unknown"),
        (sealed({**GOOD, "event": {**GOOD["event"], "on": 0}}), r"event\.on is a int, not a bool"),
        (sealed({**GOOD, "event": {**GOOD["event"], "revision": True}}), r"event\.revision is a bool, not a int"),
        (sealed(b"[1]"), "unknown or missing fields"),
        (sealed(b"{not JSON"), "Expecting property name"),
        (sealed(b"[" * 100_000), "recursion"),
        (sealed(b"\xff"), "codec can't decode"),
        (sealed(GOOD, b"left over"), "payload is longer"),
        (sealed(WITH_EDIT, b"1234567"), "8 bytes long but 7 are left"),
        (sealed(GOOD, lengths=(5, 5)), "lengths do not add up"),
        (sealed(GOOD, schema=0), "schema 0 never existed"),
    ],
)
def test_a_right_hash_over_wrong_contents_is_refused(entry, message):
    with pytest.raises(StoreCorrupt, match=message):
        decode(entry, None, 1)


def test_a_stored_request_that_todays_rules_refuse_is_named():
    header = json.loads(json.dumps(WITH_EDIT))
    header["event"]["edit"]["request"]["prompt"] = ""
    with pytest.raises(StoreCorrupt, match="`prompt` is empty"):
        decode(sealed(header, b"12345678"), None, 1)


def test_entries_of_schema_1_can_be_read_for_ever():
    """A failure means a changed field: raise the schema, keep the reader of 1, leave the file as it is."""
    entry = (RELEASED / "entry-1.bin").read_bytes()
    expected = committed(
        1,
        "e1",
        supersedes=("e0",),
        expires_at_s=100.5,
        subject="Lumen",
        aliases=("Lumen Wörks",),
        expires_in_s=99.5,
        metadata={"ticket": [7, None, 1.5]},
    )
    assert decode(entry, GENESIS, 1)[0] == expected
    assert encode(expected, GENESIS) == entry


def test_names_of_json_values_are_kept_once_over_all_entries():
    """A log repeats them in every edit: a million edits would hold a million copies."""
    report = {"exact": True, "tried": [{"an editor": "grace"}, [{"an editor": "patcher"}]]}
    one, other = (decode(encode(committed(1, report=report), GENESIS), GENESIS, 1)[0].edit.report for _ in range(2))
    assert one == other == report

    def names(value):
        own = map(id, value) if isinstance(value, dict) else ()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [*own, *(name for each in inner for name in names(each))]

    assert len(names(one)) == 4
    assert names(one) == names(other)
