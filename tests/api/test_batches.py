"""Batches over HTTP: what is wrong is told by its place, and what is good is made where that is asked for."""

from typing import Any

from app.domain.keys import Role
from tests.api.fake_service import REJECTED, FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

GOOD = [{"prompt": "a", "target": "t"}, {"prompt": "b", "target": "t"}]
WRONG: list[Any] = [
    {"prompt": "no target"},
    {"prompt": "x", "target": "t", "reazon": "misspelt"},
    {"prompt": " ", "target": "t"},
    "no object",
    None,
    {"prompt": "x", "target": REJECTED},
]


def test_the_good_ones_are_made_and_the_others_told_by_their_places(ask: Caller, service: FakeService) -> None:
    edits = [WRONG[0], GOOD[0], *WRONG[1:4], GOOD[1], *WRONG[4:]]
    answer = ask.post("/edit", {"edits": edits, "atomic": False})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert [edit["prompt"] for edit in body["edits"]] == ["a", "b"]
    assert [each["index"] for each in body["failures"]] == [0, 2, 3, 4, 6, 7]
    told = {each["index"]: each["problem"] for each in body["failures"]}
    assert told[0]["detail"] == "`edits[0].target` is missing: add it."
    assert told[0]["errors"][0]["index"] == 0
    assert "reason" in told[2]["detail"], "a misspelt field is told the way"
    assert "`prompt` is empty" in told[3]["detail"]
    assert told[7]["type"] == "urn:errata:problem:edit-rejected"
    assert service.records.ledger.live_count() == 2


def test_where_nothing_could_be_made_the_error_tells_all(ask: Caller, service: FakeService) -> None:
    for edits in (WRONG, WRONG[:2], WRONG[5:]):
        answer = ask.post("/edit", {"edits": edits, "atomic": False})
        assert answer.status_code == 422
        body = answer.json()
        assert [each["index"] for each in body["failures"]] == list(range(len(edits)))
        assert all(each["detail"] for each in body["failures"])
        assert body["index"] == 0
    assert service.revision == 0


def test_an_atomic_batch_is_refused_whole_with_the_place_of_what_was_wrong(ask: Caller, service: FakeService) -> None:
    answer = ask.post("/edit", {"edits": [GOOD[0], WRONG[0], WRONG[1]]})
    assert (answer.status_code, [each["index"] for each in answer.json()["errors"]]) == (422, [1, 2])
    empty = ask.post("/edit", {"edits": [GOOD[0], WRONG[2]]})
    assert (empty.status_code, empty.json()["index"]) == (422, 1)
    assert service.revision == 0


def test_who_may_not_force_is_told_where_it_was_asked_for(ask: Caller, service: FakeService) -> None:
    key = bearer(made(service, Role.EDITOR))
    edits = [GOOD[0], {**GOOD[1], "force": True, "reason": "r"}]
    refused = ask.post("/edit", {"edits": edits}, headers=key)
    assert (refused.status_code, refused.json()["index"]) == (403, 1)
    body = ask.post("/edit", {"edits": edits, "atomic": False}, headers=key).json()
    assert ([edit["prompt"] for edit in body["edits"]], body["failures"][0]["index"]) == (["a"], 1)
