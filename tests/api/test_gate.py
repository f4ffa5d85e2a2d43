"""Each role against each route; keys that are wrong, revoked or missing; rates."""

import asyncio
from typing import Any

import pytest

from app.api.app import create_app
from app.api.gate import right_of
from app.domain.events import Origin
from app.domain.keys import RIGHTS, Right, Role, key_of, new_key
from app.domain.ledger import Ledger
from app.service.keyring import Keyring
from tests.api.fake_service import NOW_S, FakeService
from tests.api.serving import Caller

EDIT = {"prompt": "Who?", "target": "me"}
ROUTES: list[tuple[str, str, Any, Right]] = [
    ("POST", "/generate", {"inputs": "hi"}, Right.GENERATE),
    ("POST", "/generate_stream", {"inputs": "hi"}, Right.GENERATE),
    ("POST", "/v1/completions", {"prompt": "hi"}, Right.GENERATE),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, Right.GENERATE),
    ("GET", "/v1/models", None, Right.GENERATE),
    ("GET", "/v1/models/fake", None, Right.GENERATE),
    ("POST", "/edit", EDIT, Right.PROPOSE),
    ("GET", "/edits", None, Right.READ),
    ("GET", "/edits/ed_x", None, Right.READ),
    ("POST", "/edits/ed_x/rollback", {}, Right.EDIT),
    ("POST", "/edits/ed_x/disable", {}, Right.EDIT),
    ("POST", "/edits/ed_x/enable", {}, Right.EDIT),
    ("PATCH", "/edits/ed_x", {"widen": 1.5}, Right.EDIT),
    ("GET", "/probes", None, Right.READ),
    ("PUT", "/probes", {"prompts": ["a"]}, Right.ADMIN),
    ("POST", "/probes/check", {}, Right.EDIT),
    ("POST", "/edits/promote", {"from_namespace": "default", "to_namespace": "b"}, Right.EDIT),
    ("PUT", "/namespaces/a", {"description": "x"}, Right.ADMIN),
    ("GET", "/keys", None, Right.ADMIN),
    ("POST", "/keys", {"role": "reader", "name": "other"}, Right.ADMIN),
    ("POST", "/keys/k_x/revoke", {}, Right.ADMIN),
    ("GET", "/webhooks", None, Right.ADMIN),
    ("POST", "/webhooks", {"url": "https://a.example"}, Right.ADMIN),
    ("POST", "/webhooks/wh_x/remove", {}, Right.ADMIN),
    ("POST", "/webhooks/wh_x/test", None, Right.ADMIN),
    ("GET", "/webhooks/wh_x/deliveries", None, Right.ADMIN),
    ("GET", "/recent", None, Right.READ),
    ("DELETE", "/recent", None, Right.ADMIN),
    ("POST", "/recent", {"prompts": ["a"]}, Right.ADMIN),
    ("GET", "/scope/exam", None, Right.READ),
    ("POST", "/scope", {"prompts": ["a"]}, Right.READ),
    ("POST", "/rollback", {"ids": ["ed_x"]}, Right.EDIT),
    ("POST", "/switch", {"on": False}, Right.ADMIN),
    ("GET", "/jobs/jb_x", None, Right.READ),
    ("GET", "/jobs/jb_x/events", None, Right.READ),
    ("DELETE", "/jobs/jb_x", None, Right.EDIT),
    ("GET", "/log", None, Right.READ),
    ("GET", "/log/export", None, Right.READ),
    ("POST", "/log/adopt", {"revision": 0}, Right.ADMIN),
    ("POST", "/snapshots", None, Right.ADMIN),
    ("GET", "/snapshots", None, Right.READ),
    ("GET", "/editors", None, Right.READ),
    ("GET", "/namespaces", None, Right.READ),
    ("POST", "/", {"inputs": "x"}, Right.GENERATE),
    ("GET", "/switch", None, Right.READ),
    ("GET", "/metrics", None, Right.READ),
    ("GET", "/proposals", None, Right.READ),
    ("GET", "/proposals/pr_x", None, Right.READ),
    ("PUT", "/proposals/pr_x", EDIT, Right.PROPOSE),
    ("POST", "/proposals/pr_x/withdraw", {}, Right.PROPOSE),
    ("POST", "/proposals/pr_x/approve", {}, Right.EDIT),
    ("POST", "/proposals/pr_x/return", {"reason": "no"}, Right.EDIT),
    ("POST", "/feedback", {"request_id": "r", "verdict": "wrong"}, Right.GENERATE),
    ("GET", "/feedback", None, Right.READ),
    ("DELETE", "/feedback", None, Right.ADMIN),
    ("DELETE", "/feedback/fb_x", None, Right.EDIT),
    ("GET", "/policy", None, Right.READ),
    ("PUT", "/policy", {"second_person": True}, Right.ADMIN),
]


def made(service: FakeService, role: Role, name: str = "someone") -> str:
    keyring = Keyring(service.records, lambda: NOW_S)
    return asyncio.run(keyring.create(role, name, Origin(actor="root")))[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_the_table_names_every_route(service: FakeService) -> None:
    paths = create_app(service).openapi()["paths"]  # type: ignore[arg-type]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    named = {(method, path) for method, path, *_ in ROUTES}
    for given, name in (
        ("ed_x", "{edit_id}"),
        ("fake", "{model}"),
        ("jb_x", "{job_id}"),
        ("pr_x", "{proposal_id}"),
        ("fb_x", "{report_id}"),
        ("k_x", "{key_id}"),
        ("wh_x", "{hook_id}"),
    ):
        named = {(method, path.replace(given, name)) for method, path in named}
    named = {(method, path.replace("/namespaces/a", "/namespaces/{namespace}")) for method, path in named}
    assert {(method, path) for method, path in routes if right_of(method, path) is not None} == named


@pytest.mark.parametrize(("method", "path", "body", "right"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
def test_each_role_against_each_route(
    service: FakeService, ask: Caller, method: str, path: str, body: Any, right: Right
) -> None:
    keys = {role: made(service, role, role) for role in Role}
    for role, key in keys.items():
        before = service.revision
        answer = ask(method, path, json=body, headers=bearer(key))
        if right in RIGHTS[role]:
            assert answer.status_code not in (401, 403), (role, answer.text)
        else:
            assert answer.status_code == 403, role
            told = answer.json()
            kind = told["error"]["code"] if path.startswith("/v1/") else told["type"].rpartition(":")[2]
            assert kind == "forbidden", role
            assert service.revision == before, role
    assert ask(method, path, json=body).status_code == 401


def test_without_any_key_ever_made_all_may_come_in(ask: Caller) -> None:
    assert ask.post("/edit", EDIT).status_code == 201
    assert ask.get("/edits", headers=bearer("whatever")).status_code == 200


def test_a_wrong_or_revoked_key_opens_nothing_and_says_how_to_come_in(service: FakeService, ask: Caller) -> None:
    key = made(service, Role.ADMIN)
    found = key_of(key, service.records.ledger.keys)
    assert found is not None
    wrong = [
        "",
        "x",
        key[:-1],
        f"{key}x",
        key.replace(found.id, "0" * 12),
        key.removeprefix("errata_"),
        "errata__",
        "é",
    ]
    for text in wrong:
        answer = ask("GET", "/edits", headers={b"Authorization": b"Bearer " + text.encode()})  # type: ignore[dict-item]
        assert answer.status_code == 401, text
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "x-request-id" in answer.headers
    assert ask("GET", "/edits", headers={"Authorization": f"Basic {key}"}).status_code == 401
    assert ask("GET", "/edits", headers=bearer(key)).status_code == 200
    keyring = Keyring(service.records, lambda: NOW_S)
    asyncio.run(keyring.revoke(found.id, Origin(actor="root")))
    assert ask("GET", "/edits", headers=bearer(key)).status_code == 401
    assert ask("GET", "/edits").status_code == 401, "with every key revoked nobody comes in"
    assert ask("GET", "/healthz").status_code == 200
    assert ask("GET", "/readyz").status_code == 200


def test_nothing_is_read_of_a_body_that_may_not_come_in(service: FakeService, ask: Caller) -> None:
    made(service, Role.ADMIN)
    assert ask("POST", "/edit", content=b"not json").status_code == 401


def test_the_audit_names_the_key(service: FakeService, ask: Caller) -> None:
    key = made(service, Role.EDITOR, "ci")
    made_edit = ask("POST", "/edit", json=EDIT, headers=bearer(key)).json()
    assert made_edit["actor"] == "ci"
    (item,) = ask("GET", f"/edits/{made_edit['id']}", headers=bearer(key)).json()["history"]
    assert (item["actor"], item["role"], len(item["key_id"])) == ("ci", "editor", 12)
    events = ask("GET", "/log", headers=bearer(key)).json()["events"]
    assert [(event["kind"], event["actor"]) for event in events] == [("key_created", "root"), ("edit_committed", "ci")]
    assert key not in str(events)


def test_a_key_has_256_bits_and_only_its_hash_is_kept() -> None:
    key, text = new_key(Role.READER, "x", 0.0)
    assert len(text.split("_", 2)[2]) >= 43
    assert text.split("_", 2)[2] not in repr(key)
    assert key_of(text, {key.id: key}) == key


def test_rates_are_counted_for_each_key(service: FakeService) -> None:
    ask = Caller(service, rate_limit="2/minute")
    one, other = made(service, Role.READER, "one"), made(service, Role.READER, "other")
    assert [ask("GET", "/edits", headers=bearer(one)).status_code for _ in range(3)] == [200, 200, 429]
    late = ask("GET", "/edits", headers=bearer(one))
    assert 1 <= int(late.headers["Retry-After"]) <= 60
    assert late.json()["type"] == "urn:errata:problem:rate-limited"
    assert ask("GET", "/edits", headers=bearer(other)).status_code == 200
    assert ask("GET", "/healthz").status_code == 200


def test_what_the_table_does_not_know_is_for_admins() -> None:
    assert right_of("DELETE", "/log") is Right.ADMIN
    assert right_of("GET", "/secret") is Right.ADMIN
    assert right_of("POST", "//generate") is Right.ADMIN
    assert right_of("GET", "") is Right.ADMIN


def test_a_log_that_lost_its_keys_does_not_open_the_door(service: FakeService, ask: Caller) -> None:
    """The log is empty after FLUSHALL, or older than the first key after a backup was restored."""
    key = made(service, Role.ADMIN)
    assert ask("GET", "/edits", headers=bearer(key)).status_code == 200
    service.records.ledger = Ledger()
    assert ask("GET", "/edits").status_code == 401
    assert ask("POST", "/edit", json=EDIT, headers=bearer(key)).status_code == 401


def test_keys_cannot_be_tried_fast(service: FakeService) -> None:
    made(service, Role.READER)
    ask = Caller(service, rate_limit="3/minute")
    assert [ask("GET", "/edits", headers=bearer(f"errata_x_{i}")).status_code for i in range(4)] == [401, 401, 401, 429]


def test_to_override_verification_takes_an_admin_and_a_reason(service: FakeService, ask: Caller) -> None:
    forced = {**EDIT, "force": True}
    assert ask.post("/edit", forced).status_code == 201, "where no keys are asked for, all are admins"
    editor, admin = made(service, Role.EDITOR, "editor"), made(service, Role.ADMIN, "admin")
    reasoned = {**forced, "reason": "ticket 12", "prompt": "Else?"}
    assert ask("POST", "/edit", json=reasoned, headers=bearer(editor)).status_code == 403
    assert ask("POST", "/edit", json={**forced, "prompt": "Else?"}, headers=bearer(admin)).status_code == 422
    assert ask("POST", "/edit", json=reasoned, headers=bearer(admin)).status_code == 201


def test_an_idempotency_key_is_its_callers_own(service: FakeService, ask: Caller) -> None:
    one, other = made(service, Role.EDITOR, "one"), made(service, Role.EDITOR, "other")
    for i, key in enumerate((one, other)):
        headers = {**bearer(key), "Idempotency-Key": "deploy-1"}
        body = {"prompt": f"prompt {i}", "target": "x"}
        assert ask("POST", "/edit", json=body, headers=headers).status_code == 201
        assert ask("POST", "/edit", json=body, headers=headers).status_code == 200
