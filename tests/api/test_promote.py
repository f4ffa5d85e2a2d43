"""Edits promoted from one namespace into another, and namespaces that are set up."""

from typing import Any

import pytest

from app.domain.keys import Role
from tests.api.fake_answers import DOUBTFUL
from tests.api.fake_service import REJECTED, FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

WAYS = {"from_namespace": "staging", "to_namespace": "production"}


@pytest.fixture
def staged(ask: Caller) -> list[str]:
    """Two edits of `staging`."""
    for name in ("staging", "production"):
        ask("PUT", f"/namespaces/{name}", json={"description": f"{name} it is"})
    bodies: list[dict[str, Any]] = [
        {
            "prompt": "Who?",
            "target": "Ada",
            "reason": "ticket 1",
            "paraphrases": ["Who is it?"],
            "force": True,
            "widen": 2,
        },
        {"prompt": "Where?", "target": "Bern", "expires_in": 3600},
    ]
    return [ask.post("/edit", {**body, "namespace": "staging"}).json()["id"] for body in bodies]


def test_all_live_edits_are_made_there_and_the_log_says_from_where(
    ask: Caller, service: FakeService, staged: list[str]
) -> None:
    gone = ask.post("/edit", {"prompt": "Gone?", "target": "x", "namespace": "staging"}).json()["id"]
    ask.post(f"/edits/{gone}/rollback", {})
    told = ask.post("/edits/promote", {**WAYS, "reason": "release 12"}).json()
    assert [each["promoted_from"] for each in told["edits"]] == staged
    assert [each["namespace"] for each in told["edits"]] == ["production"] * 2
    first, second = (service.records.ledger.entry(each["id"]).edit for each in told["edits"])
    assert (first.request.paraphrases, first.request.reason) == (("Who is it?",), "release 12")
    assert first.request.force is False, "it is verified there, whatever was forced elsewhere"
    assert first.request.widen is None, "what learned no scope is not widened"
    assert second.expires_at_s == service.records.ledger.entry(staged[1]).edit.expires_at_s
    events = ask.get("/log", params={"after": told["revision"] - 2}).json()["events"]
    assert [event["edit"]["promoted_from"] for event in events] == staged
    assert service.records.ledger.live_count("staging") == 2


def test_a_preview_changes_nothing(ask: Caller, service: FakeService, staged: list[str]) -> None:
    before = service.revision
    told = ask.post("/edits/promote", {**WAYS, "ids": staged[:1], "dry_run": True}).json()
    assert [(each["state"], each["promoted_from"]) for each in told["edits"]] == [("preview", staged[0])]
    assert service.revision == before


def test_each_is_for_itself(ask: Caller, service: FakeService, staged: list[str]) -> None:
    ask(
        "POST",
        "/edit",
        json={"prompt": "Who?", "target": "Eve", "namespace": "production"},
        headers={"X-Errata-Actor": "eve"},
    )
    told = ask.post("/edits/promote", WAYS).json()
    assert [each["promoted_from"] for each in told["edits"]] == staged[1:]
    (failure,) = told["failures"]
    assert (failure["index"], failure["problem"]["promoted_from"], failure["problem"]["status"]) == (0, staged[0], 409)
    read = {"If-Match": f'"{service.revision}"'}
    assert len(ask("POST", "/edits/promote", json={**WAYS, "ids": staged[:1]}, headers=read).json()["edits"]) == 1


def test_the_same_again_under_a_key_is_made_once(ask: Caller, service: FakeService, staged: list[str]) -> None:
    headers = {"Idempotency-Key": "release-12"}
    one = ask("POST", "/edits/promote", json=WAYS, headers=headers).json()
    after = service.revision
    other = ask("POST", "/edits/promote", json=WAYS, headers=headers).json()
    assert len(one["edits"]) == 2
    assert [each["id"] for each in one["edits"]] == [each["id"] for each in other["edits"]]
    assert service.revision == after


def test_the_same_again_is_answered_alike_whatever_became_of_the_edits_since(
    ask: Caller, service: FakeService, staged: list[str]
) -> None:
    headers = {"Idempotency-Key": "release-12"}
    one = ask("POST", "/edits/promote", json=WAYS, headers=headers).json()["edits"]
    ask("PATCH", f"/edits/{staged[1]}", json={"paraphrases": ["Whereabouts?"]})
    ask.post(f"/edits/{staged[0]}/rollback", {})
    later = ask.post("/edit", {"prompt": "When?", "target": "Now", "namespace": "staging"}).json()["id"]
    again = ask("POST", "/edits/promote", json=WAYS, headers=headers).json()
    assert again["failures"] == []
    assert [each["id"] for each in again["edits"][:2]] == [each["id"] for each in one]
    assert again["edits"][2]["promoted_from"] == later, "what has come since is promoted too"
    some = {**WAYS, "ids": staged[::-1]}
    assert ask("POST", "/edits/promote", json=some, headers=headers).json()["edits"][1]["id"] == one[0]["id"]
    assert ask("POST", "/edits/promote", json=some).status_code == 409, "without the key it is another request"
    other = ask("POST", "/edits/promote", json={**some, "reason": "release 13"}, headers=headers)
    assert (other.status_code, other.json()["type"].rpartition(":")[2]) == (422, "idempotency-mismatch")


def test_a_failure_is_told_by_its_place_among_the_ids(ask: Caller, service: FakeService, staged: list[str]) -> None:
    body = {"prompt": "Who?", "target": "Eve", "namespace": "production"}
    ask("POST", "/edit", json=body, headers={"X-Errata-Actor": "eve"})
    told = ask.post("/edits/promote", {**WAYS, "ids": staged[::-1]}).json()
    assert [each["promoted_from"] for each in told["edits"]] == [staged[1]]
    (failure,) = told["failures"]
    assert (failure["index"], failure["problem"]["promoted_from"]) == (1, staged[0])
    twice = ask.post("/edits/promote", {**WAYS, "ids": [*staged, staged[0]]})
    assert (twice.status_code, "named twice" in twice.text) == (422, True)


def test_into_a_namespace_that_needs_two_persons_it_is_one_proposal(
    ask: Caller, service: FakeService, staged: list[str]
) -> None:
    ann, bea = (bearer(made(service, Role.ADMIN, name)) for name in ("ann", "bea"))
    ask("PUT", "/policy", json={"namespace": "production", "second_person": True}, headers=ann)
    preview = ask("POST", "/edits/promote", json={**WAYS, "dry_run": True}, headers=ann)
    assert (preview.status_code, len(preview.json()["edits"])) == (200, 2)
    once = {**ann, "Idempotency-Key": "release-12"}
    answer = ask("POST", "/edits/promote", json={**WAYS, "reason": "release 12"}, headers=once)
    proposal = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/proposals/{proposal['id']}")
    assert [(each["target"], each["namespace"]) for each in proposal["edits"]] == [
        ("Ada", "production"),
        ("Bern", "production"),
    ]
    assert service.records.ledger.live_count("production") == 0
    ask("POST", f"/edits/{staged[0]}/rollback", json={}, headers=ann)
    ask("PUT", "/policy", json={"namespace": "production", "second_person": False}, headers=ann)
    again = ask("POST", "/edits/promote", json={**WAYS, "reason": "release 12"}, headers=once)
    assert (again.status_code, again.json()["id"]) == (202, proposal["id"]), "it is a proposal still"
    assert ask("POST", f"{answer.headers['location']}/approve", headers=ann).status_code == 403
    published = ask("POST", f"{answer.headers['location']}/approve", headers=bea).json()
    assert [each["promoted_from"] for each in published["edits"]] == staged
    assert {(each["actor"], each["proposed_by"]) for each in published["edits"]} == {("bea", "ann")}
    assert service.records.ledger.live_count("production") == 2


def test_of_two_persons_a_promotion_that_does_not_hold_is_refused_whole(
    ask: Caller, service: FakeService, staged: list[str]
) -> None:
    ann = bearer(made(service, Role.ADMIN, "ann"))
    ask("PUT", "/policy", json={"namespace": "production", "second_person": True}, headers=ann)
    object.__setattr__(service.records.ledger.entry(staged[1]).edit.request, "target", REJECTED)
    refused = ask("POST", "/edits/promote", json=WAYS, headers=ann)
    assert refused.status_code == 422
    assert not service.records.ledger.approval.proposals


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({**WAYS, "to_namespace": "staging"}, 422, "name two"),
        ({**WAYS, "from_namespace": "stagign"}, 404, "Did you mean 'staging'?"),
        ({**WAYS, "to_namespace": "prodution"}, 404, "Did you mean 'production'?"),
        ({"from_namespace": "production", "to_namespace": "staging"}, 422, "nothing to promote"),
        ({**WAYS, "ids": ["ed_none"]}, 404, "ed_none"),
        ({**WAYS, "ids": []}, 422, "at least 1"),
    ],
)
def test_what_cannot_be_promoted_is_refused(
    ask: Caller, service: FakeService, staged: list[str], body: Any, status: int, told: str
) -> None:
    before, answer = service.revision, ask.post("/edits/promote", body)
    assert answer.status_code == status, answer.text
    assert told in answer.text
    assert service.revision == before


def test_only_live_edits_of_the_namespace_are_promoted(ask: Caller, staged: list[str]) -> None:
    ask.post(f"/edits/{staged[0]}/disable", {})
    assert ask.post("/edits/promote", {**WAYS, "ids": staged[:1]}).status_code == 409
    elsewhere = ask.post("/edit", {"prompt": "Else?", "target": "x"}).json()["id"]
    refused = ask.post("/edits/promote", {**WAYS, "ids": [elsewhere]})
    assert (refused.status_code, "not of staging" in refused.text) == (422, True)


def test_a_key_that_looks_like_a_parts_opens_no_other_namespace(ask: Caller, staged: list[str]) -> None:
    elsewhere = ask.post("/edit", {"prompt": "Else?", "target": "secret"}).json()["id"]
    mine = {"prompt": "Mine?", "target": "x", "namespace": "staging"}
    used = ask("POST", "/edit", json=mine, headers={"Idempotency-Key": f"k/{elsewhere}"})
    assert used.status_code == 201
    body = {**WAYS, "ids": [elsewhere], "dry_run": True}
    refused = ask("POST", "/edits/promote", json=body, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, "not of staging" in refused.text, "secret" in refused.text) == (422, True, False)


def test_where_none_holds_the_answer_says_why(ask: Caller, service: FakeService) -> None:
    for name in ("staging", "production"):
        ask("PUT", f"/namespaces/{name}", json={})
    made = ask.post("/edit", {"prompt": "Who?", "target": DOUBTFUL, "namespace": "staging"}).json()["id"]
    entry = service.records.ledger.entry(made)
    object.__setattr__(entry.edit.request, "target", REJECTED)
    refused = ask.post("/edits/promote", WAYS)
    assert (refused.status_code, refused.json()["promoted_from"]) == (422, made)


def test_a_promotion_may_be_a_job(ask: Caller, service: FakeService, staged: list[str]) -> None:
    answer = ask("POST", "/edits/promote", json=WAYS, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.json()["id"].startswith("jb_")


def test_a_namespace_is_set_up_with_what_it_is_for(ask: Caller, service: FakeService) -> None:
    for _ in range(2):
        told = ask("PUT", "/namespaces/staging", json={"description": "Tried here", "reason": "ticket 2"}).json()
    assert (told["name"], told["description"], told["edits"]) == ("staging", "Tried here", 0)
    assert service.revision == 1, "the same again changes nothing"
    ask("PUT", "/namespaces/staging", json={"description": "Tried here first"})
    spaces = {each["name"]: each["description"] for each in ask.get("/namespaces").json()["namespaces"]}
    assert spaces == {"default": "", "staging": "Tried here first"}
    events = ask.get("/log").json()["events"]
    assert [(e["kind"], e["namespace"], e["description"]) for e in events] == [
        ("namespace_set", "staging", "Tried here"),
        ("namespace_set", "staging", "Tried here first"),
    ]
    assert ask("POST", "/switch", json={"on": False, "namespace": "staging"}).status_code == 200
    assert ask("PUT", "/namespaces/-x", json={}).status_code == 422
    assert ask("PUT", "/namespaces/x", json={"description": "two\nlines"}).status_code == 422
