"""`python -m tests.ui.show`: pictures of the pages, and how heavy and fast they are, from one run over real servers.

Writes `app/ui/pictures/`, the README's picture `app/pages.png`, and the figures of `app/ui/RESULTS.md`.
"""

import asyncio
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


def pictures(browser: Any, folder: Path) -> dict[str, float]:
    """The story of a correction, a picture of each page on its way. -> seconds, kB and ms of it."""
    with running(folder, ERRATA_RECENT_PROMPTS="1000") as server:
        page = browser.new_context(
            base_url=f"http://{server.address}", viewport={"width": 1280, "height": 860}
        ).new_page()
        page.set_default_timeout(120_000)

        def shot(name: str) -> None:
            page.wait_for_load_state()
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=PICTURES / f"{name}.png")

        page.goto("/ui/sign-in")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Go on").click()
        for country, target in (("Latvia", "euro"), ("Estonia", "euro")):  # so that lists have something to show
            server.client.post(
                "/edit",
                json={
                    "prompt": QUESTION.replace("Croatia", country),
                    "target": target,
                    "reason": "joined the euro",
                },
                headers={"X-Errata-Actor": "Grace"},
                timeout=120,
            ).raise_for_status()
        began = time.monotonic()
        page.goto("/")
        page.get_by_label("Question").fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("link", name="This is wrong").click()
        page.get_by_label("The right answer").fill("euro")
        page.get_by_label("Why").fill("Croatia joined in 2023; ticket 4711")
        shot("ask")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Publish").wait_for()
        shot("preview")
        page.get_by_role("button", name="Publish").click()
        page.get_by_text("Live at revision").wait_for()
        took_s = time.monotonic() - began
        shot("published")
        page.get_by_role("link", name="The edit, and how to undo it").click()
        shot("edit")
        for name in ("edits", "timeline", "audit", "namespaces", "health", "keys"):
            page.goto(f"/ui/{name}")
            if name == "audit":
                page.get_by_role("button", name="Check the chain").click()
                page.get_by_text("The chain is whole").wait_for()
            shot(name)
        return {"seconds from the address to the published correction, typing not counted": took_s} | first_page(
            browser, f"http://{server.address}/ui/ask"
        )


def first_page(browser: Any, url: str) -> dict[str, float]:
    """With an empty cache: bytes over the wire, and milliseconds until scripts have run and the page takes input."""
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
        edit = service._made(0, EditRequest(prompt=f"What is the currency of country {n}?", target="euro"))
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
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    text = f"""# How heavy and fast the pages are

`python -m tests.ui.show`, {when}, 2 CPU cores that others used too, the demo model, Debian's Chromium without a window.

| what | result |
|---|---|
{chr(10).join(lines)}

Pictures of every page are in [pictures](pictures); `app/pages.png` is made of four of them.
"""
    (APP / "ui/RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
