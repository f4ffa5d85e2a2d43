"""Every page with something on it, for all: without a serious finding of axe, narrow and wide, light and dark.

The pages are filled over the fake service before the browser starts, whose API keeps an event loop in this thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.domain.keys import Role
from app.service.hits import DAY_S
from tests.api.fake_answers import DOUBTFUL
from tests.api.fake_service import NOW_S, REJECTED, FakeService
from tests.api.serving import live_server
from tests.ui.test_browser import check
from tests.ui.test_coming_in import corrected, key_for
from tests.ui.test_reported import reported
from tests.ui.visitor import Forms, Visitor, text_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHEET = f"prompt,target\nWho was it?,Grace\nWhy was it?,{DOUBTFUL}\nWhere was it?,\n"


@dataclass
class Filled:
    """A service with something on every page, the pages' paths, and the session of an admin."""

    visitor: Visitor
    paths: dict[str, str]


@pytest.fixture(scope="module")
def filled() -> Filled:
    service = FakeService()
    admin, pat, ed = (Visitor(service) for _ in range(3))
    pat.app = ed.app = admin.app
    key = key_for(service, Role.ADMIN, "root")
    for who, text in ((admin, key), (pat, key_for(service, Role.PROPOSER, "pat")), (ed, key_for(service, Role.EDITOR))):
        who.sign_in(text)
    for name in ("staging", "production"):
        admin.send("/ui/namespaces", "/ui/namespaces/create", namespace=name, description="Where it is tried")
    edit_id = corrected(admin, "Who leads it?", "Ada", reason="ticket 1", until="2030-12-31")
    service.records.hits.count([edit_id] * 5, NOW_S - DAY_S)
    staged = corrected(admin, "Where is it?", "Bern", namespace="staging")
    paths = {"an edit with hits": f"edits/{edit_id}", "an edit that was rolled back": f"edits/{staged}"}
    paths["a preview"] = admin.send("/ui/correct", q="Since when?", target="2023", how="text").url.path
    refused = admin.send("/ui/correct", q="Since when?", target=DOUBTFUL, how="text").url.path
    paths |= {"a preview that would be refused": refused, "its form": f"{refused}/change"}
    paths["a preview that failed"] = admin.send("/ui/correct", q="How?", target=REJECTED, how="text").url.path
    published = admin.send("/ui/correct", q="What for?", target="For all", how="text").url.path
    assert "Live at" in text_of(admin.send(published, border="-0.7"))
    paths["a publication"] = f"{published}/published"
    for number, state in enumerate(("pending", "returned", "published")):
        preview = pat.send("/ui/correct", q=f"Who is {number}?", target="Ada", how="text", reason="ticket 2")
        pat.send(preview.url.path, border="0.9")
        proposal = list(service.records.ledger.approval.proposals)[-1]
        paths[f"a proposal that is {state}"] = page = f"/ui/proposals/{proposal}"
        if state == "returned":
            ed.send(page, f"{page}/return", reason="say since when")
        elif state == "published":
            ed.send(page, f"{page}/approve")
    page = paths["a proposal that is pending"]
    paths["a proposal that is tried"] = ed.send(page, f"{page}/try").url.path
    for prompt in ("Who leads Lumen?", "Who leads Lumen now?", "Where is Tessel?"):
        reported(admin, prompt, Authorization=f"Bearer {key}")
    checked = admin.send("/ui/many", pasted=SHEET, how="text").url.path
    paths["a sheet that is checked"] = checked
    other = admin.send("/ui/many", pasted=SHEET.replace("was", "is"), how="text").url.path
    paths["a sheet that is tried"] = admin.send(other, f"{other}/preview").url.path
    paths["edits to promote"] = promote = "/ui/promote?from=staging&to=production"
    paths["a promotion"] = sheet = admin.send(promote, "/ui/promote").url.path
    admin.send(sheet, f"{sheet}/preview")
    protected = "/ui/namespaces/protected?namespace=default"
    admin.send(protected, "/ui/namespaces/protected/set", prompts="Who leads it?\nWhen?")
    form = Forms(admin.get(protected).text).found["/ui/namespaces/protected/set"]
    paths["protected questions, asked"] = admin.post("/ui/namespaces/protected/run", form).url.path
    admin.send("/ui/webhooks", "/ui/webhooks", url="https://hooks.example.com/errata")
    (hook,) = service.records.ledger.webhooks
    admin.send(f"/ui/webhooks/{hook}", "/ui/webhooks/test")
    paths["a webhook with deliveries"] = f"/ui/webhooks/{hook}"
    admin.send(f"/ui/edits/{staged}", "/ui/edits/change", action="rollback", reason="a test")
    admin.send("/ui/namespaces/switch?on=0&namespace=staging", "/ui/namespaces/switch", reason="a test")
    paths |= {
        each: each
        for each in (
            "edits", "proposals", "proposals?state=", "reported", "timeline", "timeline/at?revision=4",
            "timeline/compare?a=1&b=9", "timeline/back?revision=3", "audit", "namespaces", "keys", "webhooks", "health",
            "namespaces/policy?namespace=default&second=1", "namespaces/policy?namespace=default&second=0", "many",
            "namespaces/switch?on=0", "ask?q=Who+leads+it%3F&how=text", "/help", "/help?q=proposal",
            "/help/operation", "/help/api",
        )
    }  # fmt: skip
    return Filled(admin, paths)


@pytest.fixture(scope="module")
def address(filled: Filled) -> Iterator[str]:
    with live_server(filled.visitor.service, filled.visitor.app) as url:
        yield url


def admitted(filled: Filled, address: str, browser: Any, **how: Any) -> Any:
    """A browser's context in the session of the admin."""
    context = browser.new_context(base_url=address, **how)
    context.set_default_timeout(120_000)
    context.add_cookies(
        [
            {"name": each.name, "value": each.value or "", "domain": "127.0.0.1", "path": each.path}
            for each in filled.visitor.cookies.jar
        ]
    )
    return context


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_every_page_with_something_on_it_is_for_everybody(
    filled: Filled, address: str, browser: Any, width: int, scheme: str
) -> None:
    context = admitted(filled, address, browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name, path in filled.paths.items():
        answer = page.goto(path if path.startswith(("/", "http")) else f"/ui/{path}")
        assert answer.ok, name
        assert "/sign-in" not in page.url, name
        check(page)
    context.close()


def test_a_border_is_dragged_by_the_keyboard_and_tried_there(filled: Filled, address: str, browser: Any) -> None:
    context = admitted(filled, address, browser)
    page = context.new_page()
    page.goto(filled.paths["a preview"])
    made = page.locator(".qrow", has_text="please")
    assert made.locator(".verdict").inner_text() == "changes"
    near = page.locator(".qrow", has=page.locator("input[value=keep]")).first
    near.evaluate("row => row.dataset.value = -1")  # between the border and where it can be dragged to
    near.locator("input[type=checkbox]").uncheck()
    page.locator("#border").focus()
    page.keyboard.press("Home")
    assert near.locator(".verdict").inner_text() == "changes"
    near.locator("input[type=checkbox]").check()
    assert near.locator(".verdict").inner_text() == "stays", "a counter-example, which no border reaches"
    page.locator("#border").focus()
    page.keyboard.press("End")
    assert made.locator(".verdict").inner_text() == "stays", "ten times the odds at most, which is enough here"
    assert page.locator("#border-out").inner_text() == ".91"
    page.get_by_role("button", name="Try again with these ticks").click()
    page.wait_for_url(lambda url: not url.endswith(filled.paths["a preview"]))
    page.locator("#publish").wait_for()
    assert float(page.locator("#border").input_value()) == pytest.approx(2.3)
    page.locator("#border").focus()
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#border").input_value()) == pytest.approx(2.3), "no farther than ten times in all"
    page.locator("#publish").click()
    page.get_by_text("to reach fewer questions: 0.1 times the odds").wait_for()
    context.close()
