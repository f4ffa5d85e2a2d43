"""Keys over HTTP, and what a key for some namespaces may see and touch."""

from typing import Any

import pytest

from app.domain.keys import Role, key_of
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import ROUTES, bearer, made

STAGING: dict[str, Any] = {"role": "editor", "name": "ci", "namespaces": ["staging"]}


@pytest.fixture
def boss(service: FakeService) -> dict[str, str]:
    return bearer(made(service, Role.ADMIN, "boss"))


def key_for(ask: Caller, boss: dict[str, str], **fields: Any) -> dict[str, str]:
    """A key for `staging`."""
    answer = ask("POST", "/keys", json={**STAGING, **fields}, headers=boss)
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["key"])


def test_a_key_is_made_listed_and_revoked(ask: Caller, service: FakeService, boss: dict[str, str]) -> None:
    answer = ask("POST", "/keys", json={**STAGING, "reason": "ticket 1"}, headers=boss)
    told = answer.json()
    key = key_of(told["key"], service.records.ledger.keys)
    assert key is not None
    assert (key.role, key.name, key.namespaces) == (Role.EDITOR, "ci", ("staging",))
    listed = ask("GET", "/keys", headers=boss)
    assert [(each["name"], each["namespaces"]) for each in listed.json()["keys"]] == [("boss", []), ("ci", ["staging"])]
    assert told["key"] not in listed.text
    (event,) = ask("GET", "/log", headers=boss, params={"after": 1}).json()["events"]
    assert (event["kind"], event["key_namespaces"], event["reason"]) == ("key_created", ["staging"], "ticket 1")
    gone = ask("POST", f"/keys/{told['id']}/revoke", headers=boss)
    assert gone.json()["revoked_at"] is not None
    assert ask("GET", "/edits", headers=bearer(told["key"])).status_code == 401
    assert ask("POST", f"/keys/{told['id']}/revoke", headers=boss).status_code == 409
    assert ask("POST", "/keys/nobody/revoke", headers=boss).status_code == 404


def test_a_key_is_made_once_under_an_idempotency_key(ask: Caller, service: FakeService, boss: dict[str, str]) -> None:
    headers = {**boss, "Idempotency-Key": "once"}
    assert ask("POST", "/keys", json=STAGING, headers=headers).status_code == 201
    again = ask("POST", "/keys", json=STAGING, headers=headers)
    assert again.status_code == 409
    assert "shown then" in again.json()["detail"]
    assert len(service.records.ledger.keys) == 2


@pytest.mark.parametrize("body", [STAGING, {**STAGING, "role": "admin"}, {"role": "editor", "name": "x"}])
def test_the_first_key_opens_everything(ask: Caller, service: FakeService, body: Any) -> None:
    refused = ask.post("/keys", body)
    assert refused.status_code == 422
    assert "first key" in refused.json()["detail"]
    assert not service.records.ledger.keys
    assert ask.post("/keys", {"role": "admin", "name": "boss"}).status_code == 201
    assert ask.get("/keys").status_code == 401


@pytest.mark.parametrize(("method", "path", "body"), [r[:3] for r in ROUTES], ids=[f"{r[0]} {r[1]}" for r in ROUTES])
def test_a_key_for_staging_touches_nothing_else(
    ask: Caller, service: FakeService, boss: dict[str, str], method: str, path: str, body: Any
) -> None:
    """Every request of the table is about `default`, or about all namespaces."""
    edit = ask("POST", "/edit", json={"prompt": "Secret?", "target": "hidden"}, headers=boss).json()
    service.recent.add_all("default", ["hidden"])
    proposer = bearer(made(service, Role.PROPOSER, "pat"))
    proposal = ask("POST", "/edit", json={"prompt": "Secret too?", "target": "hidden"}, headers=proposer).json()
    keys = {role: key_for(ask, boss, role=role, name=role) for role in ("editor", "admin")}
    before = service.revision
    path = path.replace("ed_x", edit["id"]).replace("pr_x", proposal["id"])
    if isinstance(body, dict) and body.get("ids"):
        body = {**body, "ids": [edit["id"]]}
    seen = {"/edits", "/proposals", "/namespaces", "/switch", "/editors", "/recent", "/scope/exam"}
    seen |= {"/v1/models", "/v1/models/fake"}
    for role, key in keys.items():
        answer = ask(method, path, json=body, headers=key)
        assert service.revision == before, role
        assert service.recent.counts() == {"default": 1}, role
        if method == "GET" and path in seen:
            assert answer.status_code == 200, role
            assert not any(word in answer.text for word in ("hidden", "Secret", '"default"')), role
        else:
            assert answer.status_code == (404 if "jb_x" in path else 403), (role, answer.text)


def test_a_key_for_staging_works_there(ask: Caller, service: FakeService, boss: dict[str, str]) -> None:
    key = key_for(ask, boss, role="admin")
    there = {"namespace": "staging"}
    made_edit = ask("POST", "/edit", json={"prompt": "Who?", "target": "Ada", **there}, headers=key).json()
    ask("POST", "/edit", json={"prompt": "Who?", "target": "Eve"}, headers=boss)
    answer = ask("POST", "/generate", json={"inputs": "Who?", "parameters": there}, headers=key)
    assert answer.json()["generated_text"] == "Ada"
    assert [each["target"] for each in ask("GET", "/edits", headers=key).json()["edits"]] == ["Ada"]
    assert ask("GET", "/edits?namespace=default", headers=key).status_code == 403
    assert [each["name"] for each in ask("GET", "/namespaces", headers=key).json()["namespaces"]] == ["staging"]
    steps: list[tuple[str, str, Any]] = [
        ("GET", f"/edits/{made_edit['id']}", None),
        ("PATCH", f"/edits/{made_edit['id']}", {"widen": 1.5}),
        ("POST", f"/edits/{made_edit['id']}/disable", {}),
        ("POST", f"/edits/{made_edit['id']}/enable", {}),
        ("PUT", "/probes", {"prompts": ["a"], **there}),
        ("GET", "/probes?namespace=staging", None),
        ("POST", "/probes/check", there),
        ("POST", "/scope", {"prompts": ["a"], **there}),
        ("POST", "/recent", {"prompts": ["a"], **there}),
        ("DELETE", "/recent?namespace=staging", None),
        ("PUT", "/namespaces/staging", {"description": "Tried here"}),
        ("POST", "/switch", {"on": False, **there}),
        ("POST", "/rollback", {"to_revision": 1, **there}),
    ]
    for method, path, body in steps:
        answer = ask(method, path, json=body, headers=key)
        assert answer.status_code == 200, (path, answer.text)
    assert service.records.ledger.live_count("default") == 1
    assert service.records.ledger.live_count("staging") == 0


def test_a_proposal_is_reached_by_keys_of_its_namespace(
    ask: Caller, service: FakeService, boss: dict[str, str]
) -> None:
    body = {"prompt": "Who?", "target": "Ada", "namespace": "staging"}
    pat, ed = (key_for(ask, boss, role=role, name=name) for role, name in (("proposer", "pat"), ("editor", "ed")))
    everywhere = bearer(made(service, Role.PROPOSER, "quin"))
    other = ask("POST", "/edit", json={**body, "namespace": "production"}, headers=everywhere).headers["location"]
    mine = ask("POST", "/edit", json=body, headers=pat).headers["location"]
    assert ask("GET", mine, headers=pat).json()["state"] == "pending"
    listed = ask("GET", "/proposals", headers=pat).json()
    assert ([f"/proposals/{each['id']}" for each in listed["proposals"]], listed["pending"]) == ([mine], 1)
    assert ask("GET", "/proposals", headers=boss).json()["pending"] == 2
    assert ask("GET", "/proposals?namespace=production", headers=pat).status_code == 403
    elsewhere = {**body, "namespace": "production", "target": "Eve"}
    assert ask("PUT", mine, json=elsewhere, headers=pat).status_code == 403
    assert ask("PUT", mine, json={**body, "target": "Eve"}, headers=pat).json()["edits"][0]["target"] == "Eve"
    assert ask("POST", f"{other}/approve", headers=ed).status_code == 403
    assert ask("POST", f"{mine}/approve", headers=ed).json()["target"] == "Eve"
    assert ask("GET", mine, headers=pat).json()["state"] == "published"


def test_a_job_is_seen_by_keys_of_its_namespace(ask: Caller, service: FakeService, boss: dict[str, str]) -> None:
    body = {"prompt": "Who?", "target": "Ada", "namespace": "staging"}
    headers = {**boss, "Prefer": "respond-async"}
    job = ask("POST", "/edit", json=body, headers=headers).headers["location"]
    other = ask("POST", "/edit", json={**body, "namespace": "production"}, headers=headers).headers["location"]
    key = key_for(ask, boss)
    assert ask("GET", job, headers=key).status_code == 200
    assert ask("GET", other, headers=key).status_code == 403
    assert ask("DELETE", other, headers=key).status_code == 403


def test_a_batch_with_one_edit_elsewhere_is_refused(ask: Caller, service: FakeService, boss: dict[str, str]) -> None:
    key = key_for(ask, boss)
    edits = [{"prompt": "a", "target": "b", "namespace": name} for name in ("staging", "production")]
    refused = ask("POST", "/edit", json={"edits": edits}, headers=key)
    assert (refused.status_code, refused.json()["index"]) == (403, 1)
    some = ask("POST", "/edit", json={"edits": edits, "atomic": False}, headers=key).json()
    assert [each["namespace"] for each in some["edits"]] == ["staging"]
    assert some["failures"][0]["problem"]["status"] == 403
