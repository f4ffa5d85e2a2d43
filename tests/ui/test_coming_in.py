"""Sessions and roles decide what a visitor may see and do; forged forms are refused, and texts are shown as text."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.domain.events import Origin
from app.domain.keys import Role
from app.service.keyring import Keyring
from app.ui import notifications
from tests.api.fake_service import FakeService
from tests.ui.visitor import Forms, Visitor, text_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def key_for(service: FakeService, role: Role, name: str = "ada") -> str:
    _, text = asyncio.run(Keyring(service.records, lambda: 1_700_000_000.0).create(role, name, Origin()))
    return text


def corrected(visitor: Visitor, question: str = "Who?", target: str = "Ada", **more: Any) -> str:
    """Through the pages: form, preview, publication. -> the edit's id."""
    preview = visitor.send("/ui/correct", q=question, target=target, how="text", **more)
    done = visitor.send(preview.url.path)
    assert "Live at revision" in text_of(done), text_of(done)
    return list(visitor.service.records.ledger.entries)[-1]


def test_a_browser_is_led_to_the_pages_and_other_clients_are_not(visitor: Visitor) -> None:
    led = visitor.get("/", headers={"Accept": "text/html,*/*"})
    assert led.url.path == "/ui/ask"
    assert visitor.get("/", headers={"Accept": "application/json"}).json()["model"] == "fake"


def test_a_page_brings_nothing_from_elsewhere_and_runs_no_script_of_its_text(visitor: Visitor) -> None:
    answer = visitor.get("/ui/ask")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<style" not in answer.text
    assert " style=" not in answer.text
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_the_cookie_is_shown_to_no_script_and_goes_with_no_other_site(visitor: Visitor) -> None:
    cookie = visitor.request("GET", "/ui/ask").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/ui" in cookie


def test_without_a_key_every_page_leads_to_signing_in(visitor: Visitor, service: FakeService) -> None:
    key = key_for(service, Role.EDITOR)
    assert visitor.get("/ui/edits").url.path == "/ui/sign-in"
    assert visitor.send("/ui/sign-in", key="errata_0_wrong").status_code == 422
    led = visitor.send("/ui/sign-in?next=/ui/edits", "/ui/sign-in", key=key)
    assert led.url.path == "/ui/edits"
    assert "ada" in led.text


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/ui/\\evil", "/edits", "/ui/../edits\n"])
def test_signing_in_leads_to_no_other_site(visitor: Visitor, service: FakeService, target: str) -> None:
    key = key_for(service, Role.EDITOR)
    answer = visitor.send("/ui/sign-in", key=key, next=target, follow=False)
    assert answer.headers["location"] == "/ui/ask"


def test_signing_in_takes_a_new_cookie_and_signing_out_ends_the_session(visitor: Visitor, service: FakeService) -> None:
    key = key_for(service, Role.EDITOR)
    visitor.get("/ui/sign-in")
    before = visitor.cookies["errata_session"]
    visitor.sign_in(key)
    inside = visitor.cookies["errata_session"]
    assert inside != before
    visitor.send("/ui/edits", "/ui/sign-out")
    assert visitor.get("/ui/edits").url.path == "/ui/sign-in"
    visitor.cookies.set("errata_session", inside, path="/ui")
    assert visitor.get("/ui/edits").url.path == "/ui/sign-in"


def test_a_session_ends_with_its_key(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.EDITOR))
    assert visitor.get("/ui/edits").url.path == "/ui/edits"
    (key_id,) = service.records.ledger.keys
    asyncio.run(Keyring(service.records, lambda: 1.0).revoke(key_id, Origin()))
    assert visitor.get("/ui/edits").url.path == "/ui/sign-in"


def test_a_stream_of_changes_ends_with_its_key(
    visitor: Visitor, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "SILENCE_S", 0.01)
    visitor.sign_in(key_for(service, Role.EDITOR))
    keys, wait_for = service.records.ledger.keys, service.records.wait_for
    ((key_id, key),) = keys.items()

    async def revoked_meanwhile(revision: int, timeout_s: float) -> bool:
        keys[key_id] = replace(key, revoked_at_s=1.0)
        return await wait_for(revision, timeout_s)

    monkeypatch.setattr(service.records, "wait_for", revoked_meanwhile)
    assert visitor.heard("all is quiet", since=service.revision) == "retry: 3000\n\n"


def test_where_no_key_is_asked_for_a_name_is(visitor: Visitor) -> None:
    refused = visitor.send("/ui/sign-in", name=" ")
    assert (refused.status_code, "Your name is empty" in text_of(refused)) == (422, True)
    assert visitor.send("/ui/sign-in", name="Ada").url.path == "/ui/ask"


def test_keys_cannot_be_tried_as_fast_as_they_can_be_sent(service: FakeService) -> None:
    visitor = Visitor(service, rate_limit="20/minute")
    key_for(service, Role.EDITOR)
    form = Forms(visitor.get("/ui/sign-in").text).found["/ui/sign-in"]
    statuses = [visitor.post("/ui/sign-in", form, key=f"errata_{n}_x").status_code for n in range(30)]
    assert statuses[0] == 422
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        ("", {}),
        ("0" * 64, {}),
        ("é", {}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_forged_forms_change_nothing(
    visitor: Visitor, service: FakeService, csrf: str | None, headers: dict[str, str]
) -> None:
    form = Forms(visitor.get("/ui/correct").text).found["/ui/correct"]
    fields = {"q": "Who?", "target": "Ada"} | ({} if csrf is None else {"csrf": csrf})
    visitor.headers |= headers
    assert visitor.post("/ui/correct", form, **fields).status_code == 403
    assert not service.origins


def test_a_token_of_another_visitor_is_no_good(service: FakeService, visitor: Visitor) -> None:
    other = Visitor(service, app=visitor.app)
    form = Forms(other.get("/ui/correct").text).found["/ui/correct"]
    visitor.get("/ui/ask")
    assert visitor.post("/ui/correct", form, q="Who?", target="Ada").status_code == 403


def test_roles_see_and_do_what_their_keys_may(visitor: Visitor, service: FakeService) -> None:
    reader = key_for(service, Role.READER)
    visitor.sign_in(reader)
    assert visitor.get("/ui/edits").status_code == 200
    refused = visitor.get("/ui/correct?q=Who")
    assert refused.status_code == 403
    assert "role reader" in text_of(refused)
    assert 'href="/ui/ask"' not in visitor.get("/ui/edits").text.partition("<nav")[2].partition("</nav>")[0]
    form = Forms(visitor.get("/ui/edits").text).found["/ui/sign-out"]
    assert visitor.post("/ui/edits/change", form, id="ed_0000", action="rollback").status_code == 403


def test_changes_are_signed_with_the_key_and_the_name_is_only_a_claim(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.EDITOR, "support"), name="Grace")
    edit_id = corrected(visitor, reason="ticket 1")
    origin = service.records.ledger.entry(edit_id).history[0].origin
    assert (origin.actor, origin.reason, origin.role) == ("Grace", "ticket 1", "editor")
    assert origin.key_id in service.records.ledger.keys


@pytest.mark.parametrize("field", ["q", "target", "reason", "subject", "more", "keep"])
def test_what_people_write_is_shown_as_text(visitor: Visitor, service: FakeService, field: str) -> None:
    fields = {"q": "Who?", "target": "Ada"} | {field: f"Who? {EVIL}"}
    visitor.send("/ui/sign-in", name=f"Eve {EVIL}")
    preview = visitor.send("/ui/correct", how="text", **fields)
    service.canned[fields["q"]] = EVIL
    edit_id = list(service.records.ledger.entries)[-1] if visitor.send(preview.url.path) else ""
    shown = [
        preview,
        visitor.get(f"{preview.url.path}/change"),
        visitor.get("/ui/edits"),
        visitor.get(f"/ui/edits/{edit_id}"),
        visitor.request("GET", "/ui/ask", params={"q": fields["q"], "how": "text"}),
        visitor.send("/ui/edits", "/ui/edits/change", id=edit_id, action="rollback"),
    ]
    for each in shown:
        assert each.status_code == 200
        assert "<script>alert" not in each.text, each.url
        assert "<img src=x" not in each.text, each.url
    assert any("&lt;script&gt;alert" in each.text for each in shown)


def test_a_page_that_is_not_there_says_so_as_a_page(visitor: Visitor) -> None:
    missing = visitor.get("/ui/nowhere")
    assert missing.status_code == 404
    assert missing.headers["content-type"].startswith("text/html")
    assert visitor.get("/ui/edits/ed_none").status_code == 404


def test_an_error_of_the_servers_own_is_a_page_without_its_inside(visitor: Visitor, service: FakeService) -> None:
    service.fails = RuntimeError("secret inside")
    answer = visitor.get("/ui/ask?q=Who")
    assert answer.status_code == 500
    assert "secret inside" not in answer.text
