"""Webhooks are sent to no address that only the server can reach, unless the operator allows it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.domain.errors import InvalidRequest
from app.service import webhook_addresses as module
from app.service.webhook_addresses import Unreachable, WebhookAddresses, resolve
from tests.service.webhook_receiver import PRIVATE, PUBLIC, URL, Receiver


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "hooks.example.com",
        "https:///x",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com/#x",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com/a b",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::a9fe:a9fe]/",
        "http://[fec0::1]/",
        "http://[::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
        "https://hooks.example.com/\x00",
        "https://hooks.example.com/\x7f",
        "https://hooks.example.com/a\tb",
        "https://hooks.example.com/a\nb",
        "https://hooks.example.com/" + "a" * 2_000,
    ],
)
def test_what_no_webhook_may_be_sent_to_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest):
        WebhookAddresses().check(url)


def test_a_public_address_may_be_reached() -> None:
    for url in ("https://93.184.216.34/", "https://[2606:2800:220:1:248:1893:25c8:1946]/", URL):
        WebhookAddresses().check(url)


def test_a_name_in_another_script_is_resolved_as_the_url_has_it() -> None:
    """An older rule would decode and encode straße.de as strasse.de, which is somebody else's."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return [PRIVATE]

    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(204)

    addresses = WebhookAddresses(["Straße.de"], resolve=resolve, transport=httpx.MockTransport(answer))
    assert asyncio.run(addresses.send("https://xn--strae-oqa.de/", b"{}", {})) == 204
    names = [*asked, sent[0].headers["Host"], sent[0].extensions["sni_hostname"]]
    assert set(names) == {"xn--strae-oqa.de"}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", PRIVATE, "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "fec0::1", "64:ff9b:1::a9fe:a9fe"],
)
def test_a_name_that_resolves_to_an_inner_address_is_not_reached(receiver: Receiver, address: str) -> None:
    receiver.addresses = [PUBLIC, address]
    addresses = WebhookAddresses(resolve=receiver.resolve, transport=httpx.MockTransport(receiver.answer))
    with pytest.raises(Unreachable, match="ERRATA_WEBHOOK_HOSTS"):
        asyncio.run(addresses.send(URL, b"{}", {}))
    assert receiver.requests == []


@pytest.mark.parametrize("allowed", ["hooks.example.com", "10.0.0.0/8", PRIVATE])
def test_what_the_operator_names_is_reached(receiver: Receiver, allowed: str) -> None:
    receiver.addresses = [PRIVATE]
    addresses = WebhookAddresses([allowed], resolve=receiver.resolve, transport=httpx.MockTransport(receiver.answer))
    assert asyncio.run(addresses.send(URL, b"{}", {})) == 204


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        receiver.requests.append(request)
        return httpx.Response(302, headers={"Location": "http://127.0.0.1/"})

    addresses = WebhookAddresses(resolve=receiver.resolve, transport=httpx.MockTransport(answer))
    assert asyncio.run(addresses.send(URL, b"{}", {})) == 302
    assert len(receiver.requests) == 1


def test_a_name_that_cannot_be_resolved_says_so() -> None:
    async def nowhere(_host: str, _port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(Unreachable, match="cannot be resolved"):
        asyncio.run(WebhookAddresses(resolve=nowhere).send(URL, b"{}", {}))


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "xn--a.example", "a" * 300])
def test_a_name_that_is_none_is_unreachable(host: str) -> None:
    with pytest.raises(Unreachable):
        asyncio.run(WebhookAddresses().send(f"http://{host}/", b"{}", {}))


def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(module, "LONGEST_S", 0.01)
    with pytest.raises(Unreachable, match="did not answer"):
        asyncio.run(WebhookAddresses(resolve=silence).send(URL, b"{}", {}))


def test_names_are_resolved_beside_the_threads_of_commits() -> None:
    async def story() -> list[str]:
        taken = ThreadPoolExecutor(1)
        taken.shutdown()
        asyncio.get_running_loop().set_default_executor(taken)
        return await resolve("127.0.0.1", 80)

    assert asyncio.run(story()) == ["127.0.0.1"]
