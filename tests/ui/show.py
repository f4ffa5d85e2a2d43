"""`python -m tests.ui.show`: pictures of the pages, and how heavy and fast they are, from one run over real servers.

Writes `app/ui/pictures/`, the README's picture `app/pages.png`, and the figures of `app/ui/RESULTS.md`.
"""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import sync_playwright

from app.api.app import create_app
from app.domain.edit import EditRequest
from app.domain.events import EditCommitted, Origin
from app.ui.app import pages
from tests.api.fake_service import FakeService
from tests.api.serving import live_server
from tests.server import running
from tests.ui.conftest import FLAGS

APP = Path(__file__).parents[2] / "app"
PICTURES = APP / "ui/pictures"
EDITS = 10_000
ROUNDS = 20
QUESTION = "Question: What is the currency of Croatia? Answer:"


class Camera:
    """A person at a browser, who takes pictures of the pages that they see."""

    def __init__(self, browser: Any, address: str) -> None:
        context = browser.new_context(base_url=f"http://{address}", viewport={"width": 1280, "height": 860})
        self.page = context.new_page()
        self.page.set_default_timeout(240_000)

    def sign_in(self, *, name: str = "", key: str = "") -> None:
        self.page.goto("/ui/sign-in")
        self.fill(**({"key": key} if key else {"name": name}))
        self.press("Sign in" if key else "Go on")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).first.click()

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.page.locator(f"main [name={name}]").first.fill(value)

    def shot(self, name: str, path: str | None = None, *, whole: bool = False) -> None:
        if path is not None:
            self.page.goto(path)
        self.page.wait_for_load_state()
        self.page.evaluate("scrollTo(0, 0)")
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


def pictures(browser: Any, folder: Path) -> dict[str, float]:
    """The story of a correction, a picture of each page on its way. -> seconds, kB and ms of it."""
    with running(folder, ERRATA_RECENT_PROMPTS="1000", ERRATA_FEEDBACK="100") as server:
        ada = Camera(browser, server.address)
        ada.shot("sign-in", "/ui/sign-in")
        ada.sign_in(name="Ada")
        for country in ("Latvia", "Estonia"):  # so that lists have something to show
            edited(server.client, country)
        found = story(ada)
        found |= first_page(browser, f"http://{server.address}/ui/ask")
        looking_back(ada)
        corrections(ada, server.client)
        spaces(ada, server.client)
        two_people(browser, ada, server)
        return found


def edited(client: httpx.Client, country: str, **more: str) -> None:
    body = {"prompt": QUESTION.replace("Croatia", country), "target": "euro", "reason": "joined the euro", **more}
    client.post("/edit", json=body, headers={"X-Errata-Actor": "Grace"}, timeout=240).raise_for_status()


def story(ada: Camera) -> dict[str, float]:
    """The way from the address to the published correction and its edit."""
    page, began = ada.page, time.monotonic()
    page.goto("/")
    page.get_by_label("Question").fill(QUESTION)
    ada.press("Ask")
    page.get_by_role("link", name="This is wrong").click()
    page.get_by_label("The right answer").fill("euro")
    page.get_by_label("Why").fill("Croatia joined in 2023; ticket 4711")
    ada.shot("ask")
    ada.press("Preview")
    page.get_by_role("button", name="Publish").wait_for()
    ada.shot("preview")
    ada.press("Publish")
    page.get_by_text("Live at revision").wait_for()
    took_s = time.monotonic() - began
    ada.shot("published")
    page.goto("/")
    page.get_by_label("Question").fill(QUESTION)
    ada.press("Ask")
    page.get_by_role("link", name="This is wrong").wait_for()
    ada.shot("answered")
    page.goto("/ui/edits?q=croatia")
    page.locator("td.what a").first.click()
    ada.shot("edit", whole=True)
    return {"seconds from the address to the published correction, typing not counted": took_s}


def looking_back(ada: Camera) -> None:
    """Lists, the timeline, the audit and the state of the server."""
    for name in ("edits", "timeline", "health", "keys"):
        ada.shot(name, f"/ui/{name}")
    ada.shot("compare", "/ui/timeline/compare?a=1")
    ada.shot("back", "/ui/timeline/back?revision=1")
    ada.shot("help", "/help")
    ada.page.goto("/ui/audit")
    ada.press("Check the chain")
    ada.page.get_by_text("The chain is whole").wait_for()
    ada.shot("audit")


def corrections(ada: Camera, client: httpx.Client) -> None:
    """Screenshots of reported answers and of many corrections at once."""
    for country, note in (("Bulgaria", "They pay in euro now"), ("Hungary", "Is that so?")):
        answer = client.post("/generate", json={"inputs": QUESTION.replace("Croatia", country)}, timeout=240)
        body = {"request_id": answer.headers["x-request-id"], "verdict": "wrong", "note": note}
        client.post("/feedback", json=body).raise_for_status()
    ada.shot("reported", "/ui/reported")
    ada.shot("many", "/ui/many")
    rows = [QUESTION.replace("Croatia", country) for country in ("Lithuania", "Slovenia")]
    ada.fill(pasted="prompt,target\n" + "".join(f"{row},euro\n" for row in rows) + "Who?,\n", reason="joined the euro")
    ada.press("Check the rows")
    ada.press("Preview 2")
    ada.page.get_by_role("button", name="Publish what holds").wait_for()
    ada.shot("many-tried")


def spaces(ada: Camera, client: httpx.Client) -> None:
    """Namespaces, protected questions, promotion, webhooks."""
    for name, text in (("staging", "Corrections are tried here"), ("production", "The answers that users get")):
        client.put(f"/namespaces/{name}", json={"description": text}).raise_for_status()
    edited(client, "Slovakia", namespace="staging")
    ada.shot("namespaces", "/ui/namespaces")
    ada.shot("promote", "/ui/promote?from=staging&to=production")
    ada.shot("switch", "/ui/namespaces/switch?on=0")
    ada.page.goto("/ui/namespaces/protected?namespace=default")
    ada.fill(prompts="\n".join(QUESTION.replace("Croatia", each) for each in ("Hungary", "Croatia")))
    ada.press("Run now")
    ada.page.get_by_role("heading", name="Asked now").wait_for()
    ada.shot("protected")
    ada.page.goto("/ui/webhooks")
    ada.fill(url="https://hooks.example.com/errata")
    ada.press("Set it up")
    ada.page.get_by_text("The secret of").wait_for()
    ada.shot("webhooks", "/ui/webhooks")


def two_people(browser: Any, ada: Camera, server: Any) -> None:
    """A proposal, as it waits and as a second person sees it. The first key closes the door: it comes last."""
    key = server.client.post("/keys", json={"name": "ada", "role": "admin"}).json()["key"]
    by_ada = {"Authorization": f"Bearer {key}"}
    made = server.client.post("/keys", json={"name": "pat", "role": "proposer"}, headers=by_ada)
    pat = Camera(browser, server.address)
    pat.sign_in(key=made.json()["key"])
    pat.page.goto("/ui/correct")
    pat.fill(q=QUESTION.replace("Croatia", "Malta"), target="euro", reason="joined in 2008")
    pat.press("Preview")
    pat.press("Propose")
    pat.page.get_by_text("It waits for somebody else").wait_for()
    path = pat.page.url.partition("?")[0]
    ada.sign_in(key=key)
    ada.shot("proposals", "/ui/proposals")
    ada.shot("proposal", path, whole=True)
    ada.shot("policy", "/ui/namespaces/policy?namespace=default&second=1")


def first_page(browser: Any, url: str) -> dict[str, float]:
    """The bytes over the wire with an empty cache, and the milliseconds until the page takes input."""
    sizes, ready = [], []
    for _ in range(5):
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        page.wait_for_load_state()
        entries = page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".filter(e => !e.name.includes('/changes')).map(e => e.transferSize)"
        )
        sizes.append(sum(entries))
        timing = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        ready.append(timing)
        context.close()
    return {
        "first page, all files, kB over the wire": sizes[0] / 1000,
        "first page interactive, ms (median of 5)": statistics.median(ready),
    }


def many() -> dict[str, float]:
    """A list of many edits, as a client waits for it (median)."""
    service = FakeService()
    asyncio.run(fill(service))
    app = create_app(service, pages=pages)  # type: ignore[arg-type]
    found: dict[str, float] = {}
    with live_server(service, app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for name, path in (
            (f"{EDITS:,} edits listed, ms", "/ui/edits"),
            (f"{EDITS:,} edits searched, ms", "/ui/edits?q=country+77"),
            (f"{EDITS:,} edits searched in vain, ms", "/ui/edits?q=nowhere"),
        ):
            took = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                client.get(path).raise_for_status()
                took.append((time.perf_counter() - began) * 1e3)
            found[name] = statistics.median(took)
    return found


async def fill(service: FakeService) -> None:
    for n in range(EDITS):
        edit = service.made(0, EditRequest(prompt=f"What is the currency of country {n}?", target="euro"))
        event = EditCommitted(revision=n + 1, at_s=1.7e9 + n, origin=Origin(actor=f"person {n % 9}"), edit=edit)
        async with service.records.writing:
            await service.records.append(event)


def together(browser: Any) -> None:
    """Four pages in one picture."""
    names = ("ask", "preview", "edits", "audit")
    html = "".join(f"<img src='file://{PICTURES}/{name}.png'>" for name in names)
    style = "body{margin:0;padding:24px;background:#dfe3ea;display:grid;grid-template-columns:1fr 1fr;gap:24px}"
    style += "img{width:100%;border-radius:10px;box-shadow:0 4px 18px #0003}"
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(f"<style>{style}</style>{html}")
        file.flush()
        page = browser.new_context(viewport={"width": 1400, "height": 990}).new_page()
        page.goto(f"file://{file.name}")
        page.screenshot(path=APP / "pages.png", full_page=True)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    executable = shutil.which("chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        found = pictures(browser, Path(folder))
        together(browser)
        browser.close()
    found |= many()
    lines = [f"| {name} | {value:.1f} |" for name, value in found.items()]
    when, load = datetime.now(UTC).strftime("%Y-%m-%d"), os.getloadavg()[0]
    busy = f", which others used (load {load:.1f})" if load > 1 else ""
    text = f"""# How heavy and fast the pages are

`python -m tests.ui.show`, the demo model, Debian's Chromium without a window. The newest run comes first. Pictures of
every page are in [pictures](pictures); `app/pages.png` is made of four of them.

## {when}, 2 CPU cores{busy}

| what | result |
|---|---|
{chr(10).join(lines)}
"""
    results = APP / "ui/RESULTS.md"
    earlier = results.read_text().partition("\n## ")
    results.write_text(text + (f"\n## {earlier[2]}" if earlier[1] else ""))
    print(text)


if __name__ == "__main__":
    main()
