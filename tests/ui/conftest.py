"""A real Chromium, as Debian packages it, over a real server with the model that ships."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.fake_service import FakeService
from tests.server import Server, running
from tests.ui.visitor import Visitor

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def visitor(service: FakeService) -> Visitor:
    return Visitor(service)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module. Without Chromium the tests fail rather than skip: `.ci/run` installs it.

    Playwright's synchronous API keeps an event loop running in this thread until it is stopped, and `asyncio.run`
    raises beside one. A longer scope would fail every later test of the process that calls it.
    """
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    assert executable, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: each asks about a fact of its own."""
    folder: Path = tmp_path_factory.mktemp("site")
    with running(folder, ERRATA_RECENT_PROMPTS="1000") as server:
        yield server


@pytest.fixture
def page(browser: Any, site: Server) -> Iterator[Any]:
    """A page of a new visitor. What its scripts raise, or its policy blocks, fails the test."""
    context = browser.new_context(base_url=f"http://{site.address}", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(240_000)
    found = context.new_page()
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    yield found
    context.close()
    assert wrong == []
