"""`errata` on a live server over a service without a model."""

import logging
import signal
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app
from tests.api.fake_service import FakeService
from tests.api.serving import live_server

Errata = Callable[..., Result]


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """`serve` sends logs to the stderr that it has, which a test's runner closes: later tests must not write there."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in list(root.handlers):
        if handler not in before and type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell has what it starts in the background ignore SIGINT, this suite and all processes that it starts."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def errata(service: FakeService) -> Iterator[Errata]:
    """Runs one command as `ada` and gives what it printed and how it ended."""
    with live_server(service) as url:

        def run(*arguments: object, **more: str | None) -> Result:
            environment = {"ERRATA_URL": url, "ERRATA_ACTOR": "ada", "COLUMNS": "200", "TERM": "dumb", **more}
            return CliRunner().invoke(app, [str(each) for each in arguments], env=environment)

        yield run
