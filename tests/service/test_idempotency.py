"""A request that stands already is recognised, however the edit that stands was made."""

import asyncio
from typing import Any

from app.service.idempotency import twin_of
from app.service.records import Records
from app.store.memory import MemoryLog
from tests.domain.samples import committed, request


def standing(**fields: Any) -> Records:
    records = Records(MemoryLog())
    asyncio.run(records.write(lambda: committed(1, **fields)))
    return records


def test_the_same_request_has_a_twin_whatever_its_reason_and_origin() -> None:
    records = standing(reason="new head")
    assert twin_of(records, request()) == "e1"
    assert twin_of(records, request(promoted_from="e0")) == "e1"
    assert twin_of(records, request(target="Bo Vane")) is None
    assert twin_of(records, request(widen=2.0)) is None
    assert twin_of(records, request(expires_in_s=60.0)) is None


def test_a_request_beside_a_promoted_edit_that_is_wider_than_a_request_may_be_is_another_one() -> None:
    records = standing(promoted_from="e0", widen=50.0)
    assert twin_of(records, request()) is None
    assert twin_of(records, request(widen=10.0)) is None


def test_a_promoted_request_has_a_twin_that_reaches_as_far() -> None:
    records = standing(widen=2.0)  # of which nothing is learned here, so that it reaches as far as any
    assert twin_of(records, request(promoted_from="e0")) == "e1"
    assert twin_of(records, request(promoted_from="e0", widen=50.0)) is None
