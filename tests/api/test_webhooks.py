"""Webhooks over HTTP: set up, shown once, tried, listed, removed."""

import pytest

from app.domain.keys import Role
from app.domain.webhooks import KINDS, USUAL
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

URL = "https://hooks.example.com/errata"


def test_the_story_of_a_webhook(ask: Caller, service: FakeService) -> None:
    answer = ask.post("/webhooks", {"url": URL, "namespaces": ["production"], "reason": "ticket 1"})
    assert answer.status_code == 201
    told = answer.json()
    assert told["kinds"] == ["publish", "rollback", "switch"]
    assert told["secret"].startswith("whsec_")
    listed = ask.get("/webhooks")
    assert [(each["id"], each["url"], each["namespaces"]) for each in listed.json()["webhooks"]] == [
        (told["id"], URL, ["production"])
    ]
    (event,) = ask.get("/log").json()["events"]
    assert (event["kind"], event["webhook"], event["url"]) == ("webhook_set", told["id"], "https://hooks.example.com")
    for other in (listed, ask.get("/log"), ask.get("/log/export")):
        assert told["secret"] not in other.text
    tested = ask.post(f"/webhooks/{told['id']}/test").json()
    assert (tested["outcome"], tested["status"], tested["kind"]) == ("delivered", 204, "test")
    found = ask.get(f"/webhooks/{told['id']}/deliveries").json()
    assert [each["id"] for each in found["deliveries"]] == [tested["id"]]
    assert ask.post(f"/webhooks/{told['id']}/remove", {"reason": "over"}).json()["webhooks"] == []
    assert ask.get(f"/webhooks/{told['id']}/deliveries").status_code == 404
    assert ask.post(f"/webhooks/{told['id']}/test").status_code == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"url": "http://127.0.0.1/x"}, "ERRATA_WEBHOOK_HOSTS"),
        ({"url": "ftp://a.example"}, "http or https"),
        ({"url": URL, "kinds": []}, "kinds"),
        ({"url": URL, "kinds": ["refused"]}, "kinds"),
        ({"url": URL, "namespaces": ["-"]}, "namespaces"),
    ],
)
def test_what_cannot_be_set_up_is_refused(ask: Caller, service: FakeService, body: object, told: str) -> None:
    refused = ask.post("/webhooks", body)
    assert (refused.status_code, told in refused.text) == (422, True), refused.text
    assert service.revision == 0


def test_only_admins_of_all_namespaces_see_them(ask: Caller, service: FakeService) -> None:
    boss = bearer(made(service, Role.ADMIN, "boss"))
    body = {"role": "admin", "name": "staging", "namespaces": ["staging"]}
    narrow = bearer(ask("POST", "/keys", json=body, headers=boss).json()["key"])
    for key in (narrow, bearer(made(service, Role.EDITOR, "editor"))):
        assert ask("GET", "/webhooks", headers=key).status_code == 403
        assert ask("POST", "/webhooks", json={"url": URL}, headers=key).status_code == 403
    assert ask("POST", "/webhooks", json={"url": URL}, headers=boss).status_code == 201


def test_the_description_of_the_api_knows_every_kind(ask: Caller) -> None:
    body = ask.get("/openapi.json").json()["components"]["schemas"]["WebhookBody"]["properties"]["kinds"]
    assert body["items"]["enum"] == list(KINDS)
    assert body["default"] == list(USUAL)
