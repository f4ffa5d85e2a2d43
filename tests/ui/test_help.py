"""The documentation as the server shows it: who may read it, where its links lead, and that it needs nothing else."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from app.domain.keys import Role
from app.ui.desk import linked
from app.ui.help import ORDER, read, rendered, slug
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.ui.test_coming_in import key_for
from tests.ui.visitor import Visitor, text_of

ADDRESSES = ["/help", *(f"/help/{name}" for name in ORDER)]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_stands_in_the_frame_of_all_pages_and_loads_nothing_from_elsewhere(
    visitor: Visitor, address: str
) -> None:
    answer = visitor.request("GET", address)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "/style.css" in answer.text
    assert 'aria-current="page">Help</a>' in answer.text
    assert " style=" not in answer.text
    assert re.findall(r'(?:src|<link[^>]* href)="(?!/)', answer.text) == []
    assert visitor.request("HEAD", address).status_code == 200


def test_the_index_leads_to_every_page_and_section(visitor: Visitor) -> None:
    linked = set(re.findall(r'href="(/help/[^"]+)"', visitor.get("/help").text))
    for name, page in read().items():
        assert f"/help/{name}" in linked
        assert {f"/help/{name}#{section.anchor}" for section in page.sections} <= linked


def test_each_link_leads_to_an_anchor_or_a_drawing(visitor: Visitor) -> None:
    pages = read()
    for name in ORDER:
        text = visitor.get(f"/help/{name}").text
        inside = re.findall(r'(?:href|src)="(?:/help/([^"#]*))?(?:#([^"]*))?"', text)
        assert inside
        for page, anchor in inside:
            if page.endswith(".svg"):
                assert visitor.get(f"/help/{page}").headers["content-type"].startswith("image/svg+xml")
            elif anchor not in ("", "main"):
                assert anchor in pages[page or name].anchors, f"{name}: {page}#{anchor}"
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids))


def test_a_page_that_does_not_exist_says_where_pages_are_listed(visitor: Visitor) -> None:
    answer = visitor.get("/help/nowhere")
    assert answer.status_code == 404
    assert "/help lists them" in text_of(answer)


# -- who may read it


@pytest.mark.parametrize("role", list(Role))
def test_where_keys_are_asked_for_any_role_reads_it(visitor: Visitor, service: FakeService, role: Role) -> None:
    key = key_for(service, role)
    led = visitor.get("/help/scope")
    assert led.url.path == "/ui/sign-in"
    signed_in = visitor.send("/ui/sign-in?next=/help/scope", "/ui/sign-in", key=key)
    assert signed_in.url.path == "/help/scope"
    assert signed_in.status_code == 200
    assert "Sign out" in signed_in.text


def test_a_bearer_reads_it_and_a_wrong_one_does_not(visitor: Visitor, service: FakeService) -> None:
    key = key_for(service, Role.GENERATOR)
    assert visitor.request("GET", "/help", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert visitor.request("GET", "/help", headers={"Authorization": "Bearer errata_0_wrong"}).status_code == 401
    assert visitor.request("GET", "/help", headers={"Authorization": "Bearer "}).status_code == 303


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 303), ("testing", 303)])
def test_from_the_machine_itself_it_is_read_without_a_key(
    visitor: Visitor, service: FakeService, address: str, status: int
) -> None:
    key_for(service, Role.ADMIN)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(visitor.app, client=(address, 4567))
        async with httpx.AsyncClient(transport=transport, base_url="http://errata") as client:
            return await client.get("/help/api")

    answer = asyncio.run(ask())
    assert answer.status_code == status
    assert "Edits</a>" not in answer.text, "nothing else is shown to whom has no key"


def test_the_cookie_of_a_session_opens_the_documentation_and_no_other_path(
    visitor: Visitor, service: FakeService
) -> None:
    key = key_for(service, Role.READER)
    visitor.sign_in(key)
    assert {cookie.path for cookie in visitor.cookies.jar} == {"/ui", "/help"}
    assert visitor.request("GET", "/help").status_code == 200
    visitor.send("/help", "/ui/sign-out")
    assert visitor.request("GET", "/help").status_code == 303


def test_foreign_pages_do_not_read_it_while_there_is_no_key(visitor: Visitor) -> None:
    assert visitor.request("GET", "/help", headers={"Host": "evil.example"}).status_code == 403


def test_an_api_without_pages_has_no_documentation(service: FakeService) -> None:
    assert Caller(service).get("/help").status_code == 404


# -- messages


def test_a_message_leads_to_a_page_and_stays_text() -> None:
    told = linked("<b> is wrong. See /help/scope#too-narrow. Not http://evil/help/scope, nor /help/<b>.")
    assert told == (
        '&lt;b&gt; is wrong. See <a href="/help/scope#too-narrow">/help/scope#too-narrow</a>. Not '
        "http://evil/help/scope, nor /help/&lt;b&gt;."
    )


def test_a_refusal_on_a_page_leads_to_its_explanation(visitor: Visitor, service: FakeService) -> None:
    visitor.sign_in(key_for(service, Role.READER))
    answer = visitor.get("/ui/keys")
    assert answer.status_code == 403
    assert '<a href="/help/operation#keys-and-roles">' in answer.text


# -- the renderer


def page(text: str) -> Any:
    return rendered("page", f"# Title\n\nA lead.\n\n{text}")


def test_text_is_text() -> None:
    html = page("<script>alert(1)</script> `<b>`").html
    assert "<script>" not in html
    assert "&lt;b&gt;" in html


def test_links_between_files_become_links_between_pages() -> None:
    html = page(
        "[a](scope.md) [b](scope.md#too-narrow) [c](#here) ![d](scope.svg) [e](https://arxiv.org/abs/1)\n\n## Here"
    ).html
    for link in ("/help/scope", "/help/scope#too-narrow", "#here", "/help/scope.svg", "https://arxiv.org/abs/1"):
        assert f'="{link}"' in html


@pytest.mark.parametrize("link", ["../README.md", "http://plain.example", "/ui/ask", "Scope.md"])
def test_a_link_that_leads_out_is_refused(link: str) -> None:
    with pytest.raises(ValueError, match="is not a page"):
        page(f"[a]({link}) ![b]({link})")


def test_anchors_are_those_of_github() -> None:
    assert slug("Too narrow, too wide") == "too-narrow-too-wide"
    assert slug("`errata log` and ERRATA_LOG_SECRET") == "errata-log-and-errata_log_secret"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("A lead.", "begins with a title"), ("# Title", "begins with a title"), ("# T\n\nx\n\n## T\n\ny", "same anchor")],
)
def test_a_page_that_is_not_well_made_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        rendered("page", text)


def test_numbers_to_the_right_are_a_class_and_no_style() -> None:
    html = page("| a | b |\n|---|---:|\n| c | 1 |").html
    assert '<td class="num">1</td>' in html
    assert "style" not in html
