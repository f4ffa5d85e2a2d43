"""A server without keys serves its own machine, and no web page edits the model; a proxy passes its address on."""

from typing import Any

import pytest

from app.config import Settings
from app.domain.keys import Role
from tests.api.fake_service import FakeService
from tests.api.serving import Caller
from tests.api.test_gate import bearer, made

EDIT = {"prompt": "Who?", "target": "me"}


def called(ask: Caller, host: str, **headers: str) -> Any:
    return ask.post("/edit", EDIT, headers={"Host": host, **headers})


@pytest.fixture
def alone(service: FakeService) -> Caller:
    return Caller(service, allowed_hosts=[])


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "localhost."]
)
def test_this_machine_is_called_by_its_own_names(alone: Caller, host: str) -> None:
    assert called(alone, host).status_code in (200, 201)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.1.2.3",
        "",
        "[",
        "a@b",
    ],
)
def test_a_name_that_resolves_here_opens_nothing(alone: Caller, service: FakeService, host: str) -> None:
    """DNS rebinding: the page's own name leads to this machine."""
    answer = called(alone, host)
    assert (answer.status_code, service.revision) == (403, 0)
    assert "ERRATA_ALLOWED_HOSTS" in answer.json()["detail"]
    assert alone.get("/edits", headers={"Host": host}).status_code == 403
    told = alone.post("/v1/completions", {"prompt": "x"}, headers={"Host": host})
    assert (told.status_code, told.json()["error"]["code"]) == (403, "forbidden")
    assert alone.get("/healthz", headers={"Host": host}).status_code == 200


def test_hosts_and_networks_that_are_named_are_served(service: FakeService) -> None:
    ask = Caller(service, allowed_hosts=["errata.internal", "10.0.0.0/8", "2001:db8::/32"])
    for host in ("errata.internal", "ERRATA.internal:8000", "10.1.2.3:8000", "[2001:db8::7]:8000"):
        assert called(ask, host).status_code in (200, 201), host
    assert called(ask, "192.168.0.1").status_code == called(ask, "internal").status_code == 403
    assert called(Caller(service, allowed_hosts=["*"]), "any.example").status_code == 201


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:3000", "null", "http://127.0.0.1:8000", "http://[x", ""]
)
def test_pages_of_other_origins_are_refused(alone: Caller, service: FakeService, origin: str) -> None:
    answer = called(alone, "localhost:8000", Origin=origin)
    assert (answer.status_code, service.revision) == (403, 0)
    assert "ERRATA_CORS_ORIGINS" in answer.json()["detail"]


def test_its_own_pages_and_those_that_are_named_are_not(service: FakeService) -> None:
    assert (
        called(Caller(service, allowed_hosts=[]), "localhost:8000", Origin="http://localhost:8000").status_code == 201
    )
    page = "https://app.example.com"
    assert called(Caller(service, cors_origins=[page]), "localhost", Origin=page).status_code == 201
    assert called(Caller(service, cors_origins=[page]), "localhost", Origin=f"{page}.evil").status_code == 403


def test_once_there_is_a_key_it_is_the_key_that_counts(service: FakeService, alone: Caller) -> None:
    key = bearer(made(service, Role.ADMIN))
    assert called(alone, "errata.example", **key).status_code == 201
    assert called(alone, "errata.example").status_code == 401


def test_the_settings_are_read_with_commas_and_checked() -> None:
    found = Settings(_env_file=None, allowed_hosts="errata, 10.0.0.0/8", trusted_proxies="10.0.0.7,10.1.0.0/16")  # type: ignore[call-arg]
    assert (found.allowed_hosts, found.trusted_proxies) == (("errata", "10.0.0.0/8"), ("10.0.0.7", "10.1.0.0/16"))
    for wrong in ({"trusted_proxies": "proxy.example"}, {"allowed_hosts": "http://x"}, {"allowed_hosts": "x:8000"}):
        with pytest.raises(ValueError, match=r"host|network"):
            Settings(_env_file=None, **wrong)  # type: ignore[arg-type, call-arg]


def clients(service: FakeService, **more: Any) -> str | None:
    ask = Caller(service, **more)
    ask.post("/edit", EDIT, headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"})
    return service.origins[-1].client


def test_behind_a_trusted_proxy_the_audit_has_the_clients_address(service: FakeService) -> None:
    assert clients(service, trusted_proxies=["10.1.2.0/24"]) == "203.0.113.9", "what the client wrote itself is not"
    assert clients(service) == "10.1.2.3", "nobody is believed who is not named"
    assert clients(service, trusted_proxies=["10.9.9.9"]) == "10.1.2.3"


def test_rates_are_counted_by_the_clients_address(service: FakeService) -> None:
    ask = Caller(service, rate_limit="1/minute", trusted_proxies=["10.1.2.3"])
    found = [ask.get("/edits", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in (1, 2, 1)]
    assert found == [200, 200, 429]
