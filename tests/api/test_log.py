"""The log and the editors as they are read over HTTP."""

import asyncio

from app.domain.edit import EditRequest
from app.domain.events import Origin
from tests.api.fake_service import FakeService
from tests.api.serving import Caller

ONE = {"prompt": "Lumen is led by", "target": "Ada Quill"}


def test_the_log(ask: Caller, service: FakeService) -> None:
    ask.post("/edit", ONE, headers={"X-Errata-Actor": "ann", "Idempotency-Key": "secret-key"})
    ask.post("/edit", {"edits": [{"prompt": "p", "target": "t"}]})
    ask.post("/edits/ed_0000/rollback", {"reason": "wrong"})
    ask.post("/switch", {"on": False, "namespace": "default"})
    body = ask.get("/log").json()
    assert body["next_after"] is None
    committed, staged, closed, back, switched = body["events"]
    assert committed == {
        "revision": 1,
        "hash": service.records.log.hash_of(1),
        "kind": "edit_committed",
        "at": "2023-11-14T22:13:20Z",
        "actor": "ann",
        "key_id": None,
        "role": None,
        "reason": None,
        "request_id": committed["request_id"],
        "client": "10.1.2.3",
        "edit": {
            "id": "ed_0000", "editor": "grace", "namespace": "default", "prompt": "Lumen is led by",
            "target": "Ada Quill", "before": "base answer here", "after": "Ada Quill", "forced": False, "reason": None,
            "supersedes": [],
            "promoted_from": None,
        },
        "superseded": [],
        "revived": [],
    }  # fmt: skip
    assert (staged["batch_id"], staged["edit"]["id"]) == ("ba_1", "ed_0001")
    assert (closed["batch_id"], closed["edit_ids"]) == ("ba_1", ["ed_0001"])
    assert (back["kind"], back["edit_ids"], back["reason"]) == ("edits_rolled_back", ["ed_0000"], "wrong")
    assert (switched["kind"], switched["namespace"], switched["on"]) == ("switch_set", "default", False)
    assert "secret-key" not in ask.get("/log").text


def test_the_log_in_pages(ask: Caller) -> None:
    for i in range(3):
        ask.post("/edit", {"prompt": f"p{i}", "target": "t"})
    first = ask.get("/log", params={"limit": 2}).json()
    assert ([event["revision"] for event in first["events"]], first["next_after"]) == ([1, 2], 2)
    rest = ask.get("/log", params={"after": 2}).json()
    assert ([event["revision"] for event in rest["events"]], rest["next_after"]) == ([3], None)
    assert ask.get("/log", params={"limit": 0}).status_code == 422


def test_a_trimmed_log_begins_later_and_says_so_where_more_is_asked_for(ask: Caller, service: FakeService) -> None:
    for i in range(4):
        ask.post("/edit", {"prompt": f"p{i}", "target": "t"})
    service.records.log.trim(3)
    assert [event["revision"] for event in ask.get("/log").json()["events"]] == [3, 4]
    assert [event["revision"] for event in ask.get("/log", params={"after": 2}).json()["events"]] == [3, 4]
    gone = ask.get("/log", params={"after": 1})
    assert (gone.status_code, gone.json()["oldest"]) == (410, 3)


def test_snapshots_are_taken_once_a_revision_and_listed(ask: Caller) -> None:
    empty = ask.post("/snapshots")
    assert (empty.status_code, ask.get("/snapshots").json()) == (422, {"snapshots": []})
    ask.post("/edit", ONE)
    made = ask.post("/snapshots")
    assert made.status_code == 201
    body = made.json()
    assert (body["revision"], body["edits"], body["at"]) == (1, 1, "2023-11-14T22:13:20Z")
    assert body["hash"] == ask.get("/log").json()["events"][0]["hash"]
    assert body["bytes"] > 100
    again = ask.post("/snapshots")
    assert (again.status_code, again.json()) == (200, body)
    assert ask.get("/snapshots").json() == {"snapshots": [body]}


def test_the_editors(ask: Caller, service: FakeService) -> None:
    assert ask.get("/editors").json() == {"editors": service.editors()}


def test_the_log_above_its_head_is_empty_not_damaged(ask: Caller) -> None:
    assert ask.get("/log", params={"after": 7}).json() == {
        "events": [], "next_after": None, "next_before": None, "read_to": 7,
    }  # fmt: skip


def test_an_expiry_beyond_all_calendars_is_refused_and_one_in_the_log_stays_readable(
    ask: Caller, service: FakeService
) -> None:
    refused = ask.post("/edit", {"prompt": "p", "target": "t", "expires_in": 1e12})
    assert refused.status_code == 422
    assert service.revision == 0
    request = EditRequest(prompt="p", target="t", expires_in_s=1e12)
    asyncio.run(service.edit([request], Origin()))
    (found,) = ask.get("/edits").json()["edits"]
    assert found["expires_at"].startswith("9999-12-31")


def test_a_log_that_took_the_place_of_the_applied_one_is_adopted_by_an_operator(
    ask: Caller, service: FakeService
) -> None:
    service.records.holds["history"] = "the log that was applied here is gone"
    ready = ask.get("/readyz")
    assert (ready.status_code, ready.json()["why_not"]) == (503, "the log that was applied here is gone")
    adopted = ask.post("/log/adopt", {"revision": 0, "reason": "restored"})
    assert (adopted.status_code, adopted.json()) == (200, {"revision": 0, "hash": "0" * 64})
    assert service.origins[-1].reason == "restored"
    assert ask.get("/readyz").status_code == 200
    assert ask.post("/log/adopt", {"revision": 0}).status_code == 409
    assert ask.post("/log/adopt", {}).status_code == 422
