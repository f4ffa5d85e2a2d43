"""An app over a service without a model."""

from collections.abc import Iterator

import httpx
import pytest

from tests.api.fake_service import FakeService
from tests.api.serving import Caller, live_server


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def ask(service: FakeService) -> Caller:
    return Caller(service)


@pytest.fixture
def live(service: FakeService) -> Iterator[httpx.Client]:
    """Over a real socket: what streams and disconnects need."""
    with live_server(service) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client
