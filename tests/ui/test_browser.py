"""The whole story in a real Chromium: from a wrong answer to a proven, rolled-back edit; by keyboard; without scripts;
two at once; every page readable for all, narrow and wide, light and dark."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app.ui.help import ORDER
from tests.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
AXE = (Path(__file__).parent / "axe.min.js").read_text()
PAGES = [
    "ask",
    "ask?q=Question%3A+What+is+the+currency+of+Hungary%3F+Answer%3A",
    "correct?q=Who",
    "many",
    "proposals",
    "reported",
    "edits",
    "timeline",
    "timeline/at?revision=0",
    "timeline/compare?a=0",
    "timeline/back?revision=0",
    "audit",
    "namespaces",
    "namespaces/switch?on=0",
    "namespaces/protected",
    "keys",
    "webhooks",
    "promote",
    "sign-in",
    "nowhere",
]


def asks(country: str) -> str:
    return f"Question: What is the currency of {country}? Answer:"


def ask(page: Any, question: str) -> tuple[str, str]:
    """The two answers."""
    page.goto("/ui/ask")
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask").click()
    page.locator("#wrong").wait_for()
    return page.locator("[data-pane=live]").inner_text(), page.locator("[data-pane=base]").inner_text()


def correct(page: Any, question: str, target: str, reason: str) -> None:
    """The visitor goes as far as the published edit."""
    ask(page, question)
    page.get_by_role("link", name="This is wrong").click()
    page.get_by_label("The right answer").fill(target)
    page.get_by_label("Why").fill(reason)
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("Live at revision").wait_for()


def test_the_whole_story(page: Any) -> None:
    question = asks("Croatia")
    assert ask(page, question) == ("kuna", "kuna")
    page.get_by_role("link", name="This is wrong").click()
    page.get_by_label("The right answer").fill("euro")
    page.get_by_label("Why").fill("joined in 2023")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("heading", name="Preview").wait_for()
    assert page.locator("ins").first.inner_text() == "euro"
    assert page.locator("del").first.inner_text() == "kuna"
    near = page.locator("section", has=page.get_by_role("heading", name="Near misses"))
    assert near.get_by_role("checkbox").count() > 0
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("Live at revision").wait_for()
    assert ask(page, question) == ("euro", "kuna")
    assert page.locator(".chip.hit .why").inner_text().startswith("Asks the same as the edit’s question: ")
    assert ask(page, asks("Hungary"))[0] == "forint"
    page.get_by_role("link", name="Edits").click()
    page.get_by_role("searchbox").fill("croatia")
    page.locator("td.what a").first.click()
    assert "joined in 2023" in page.locator(".history").inner_text()
    page.locator(".undo").get_by_label("Why").fill("only a test")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("it is rolled back").wait_for()
    assert "only a test" in page.locator(".history").inner_text()
    assert ask(page, question) == ("kuna", "kuna")


def test_by_the_keyboard_alone(page: Any) -> None:
    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(() => { const e = document.activeElement; const l = e.labels?.[0];"
                " return (l ? l.innerText : e.innerText).trim().split('\\n')[0] })()"
            )
            if focused.startswith(name):
                return
        raise AssertionError(f"{name} is not reached by tabbing")

    page.goto("/ui/ask")
    tab_to("Question")
    page.keyboard.type(asks("Latvia"))
    tab_to("Ask")
    page.keyboard.press("Enter")
    page.locator("#wrong").wait_for()
    tab_to("This is wrong")
    page.keyboard.press("Enter")
    page.locator("#c-target").wait_for()
    tab_to("The right answer")
    page.keyboard.type("euro")
    tab_to("Preview")
    page.keyboard.press("Enter")
    page.locator("#publish").wait_for()
    tab_to("Publish")
    page.keyboard.press("Enter")
    page.get_by_text("Live at revision").wait_for()
    tab_to("The edit, and how to undo it")
    page.keyboard.press("Enter")
    page.locator(".undo").wait_for()
    tab_to("Roll back")
    page.keyboard.press("Enter")
    page.get_by_text("it is rolled back").wait_for()


def test_without_scripts(browser: Any, site: Server) -> None:
    """The same forms and links, whole pages in place of parts."""
    context = browser.new_context(base_url=f"http://{site.address}", java_script_enabled=False)
    context.set_default_timeout(240_000)
    page = context.new_page()
    correct(page, asks("Estonia"), "euro", "joined in 2011")
    page.get_by_role("link", name="The edit, and how to undo it").click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("it is rolled back").wait_for()
    context.close()


def test_two_people_see_each_others_changes(page: Any, browser: Any, site: Server) -> None:
    page.goto("/ui/edits")
    page.wait_for_timeout(500)
    context = browser.new_context(base_url=f"http://{site.address}")
    context.set_default_timeout(240_000)
    other = context.new_page()
    other.goto("/ui/sign-in")
    other.get_by_label("Your name").fill("Grace")
    other.get_by_role("button", name="Go on").click()
    correct(other, asks("Lithuania"), "euro", "joined in 2015")
    page.get_by_text("Grace published an edit").wait_for()
    context.close()


def test_back_and_reload_do_no_harm(page: Any, site: Server) -> None:
    correct(page, asks("Slovenia"), "euro", "joined in 2007")
    revision = site.client.get("/readyz").json()["revision"]
    page.reload()
    page.get_by_text("Live at revision").wait_for()
    page.go_back()
    page.wait_for_load_state()
    page.go_back()
    page.wait_for_load_state()
    page.go_forward()
    page.wait_for_load_state()
    assert site.client.get("/readyz").json()["revision"] == revision


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_every_page_is_for_everybody(browser: Any, site: Server, width: int, scheme: str) -> None:
    """No serious or critical finding of axe, and nothing that scrolls sideways."""
    context = browser.new_context(
        base_url=f"http://{site.address}", viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    for path in [*PAGES, *(f"edits/{each['id']}" for each in site.client.get("/edits?limit=1").json()["edits"])]:
        page.goto(f"/ui/{path}")
        check(page)
    for path in ("/help", *(f"/help/{name}" for name in ORDER)):
        page.goto(path)
        check(page)
    context.close()


def check(page: Any) -> None:
    found = page.evaluate(f"{AXE}; axe.run(document, {{resultTypes: ['violations']}})")
    bad = [
        (each["id"], [node["target"] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert bad == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} scrolls sideways"


def test_the_documentation_is_shown_with_its_drawing_and_at_a_heading(page: Any) -> None:
    page.goto("/help/scope#too-narrow")
    assert (
        page.locator("article img").evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0
    )
    expect(page.locator("#too-narrow")).to_be_in_viewport()
    page.get_by_label("Documentation").get_by_role("link", name="Troubleshooting").click()
    page.get_by_role("heading", name="Troubleshooting", level=1).wait_for()
