"""The addresses to which webhooks may be sent: public ones, and those that the operator named. Sends the request.

Setting up a webhook makes this server send requests. Without care these would reach addresses that only this server can
reach (SSRF): its own loopback, a cloud's metadata, a company's inner network. A name is therefore resolved once, each
of its addresses is checked, and the request goes to a checked address: a name that resolves otherwise a moment later
(DNS rebinding) changes nothing. Redirects are not followed, proxies from the environment are not used, and only the
status of an answer is kept.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.domain.errors import InvalidRequest

MAX_URL_CHARS = 2_000
TIMEOUT_S = 10.0
LONGEST_S = 2 * TIMEOUT_S
"""The longest time that one message may take, in seconds."""
PORTS = {"http": 80, "https": 443}
UNICAST = ip_network("2000::/3")
"""The only range from which public IPv6 addresses are given out. Outside of it lie forms that embed an IPv4 address
and site-local addresses, which `is_global` of older versions of Python takes for public."""

_NAMES = ThreadPoolExecutor(4, thread_name_prefix="names")
"""The threads that wait for name servers. On the loop's own executor, which commits use, a silent name server would
hold up the log."""

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Coroutine[Any, Any, list[str]]]


class Unreachable(Exception):
    """The request was not sent, or not answered; the message says why."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host name. Raises OSError, and UnicodeError for a text that cannot be a name."""
    loop = asyncio.get_running_loop()
    records = await loop.run_in_executor(_NAMES, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(each[4][0]) for each in records))


class WebhookAddresses:
    """The addresses that may be reached. `allowed` lists names, addresses and networks that may be reached although
    they are not public."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        resolve: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._names = {_as_sent(each) for each in allowed}
        self._networks = []
        for each in allowed:
            with suppress(ValueError):  # the entry is a name, not a network
                self._networks.append(ip_network(each, strict=False))
        self._resolve, self._transport = resolve, transport

    def check(self, url: str) -> None:
        """Check a URL without resolving its name. Raises InvalidRequest for an address to which nothing may be sent."""
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidRequest("The URL cannot be read: give one such as https://hooks.example.com/errata.") from None
        visible = all("!" <= each <= "~" for each in url)
        if parts.scheme not in PORTS or not host or len(url) > MAX_URL_CHARS or not visible:
            raise InvalidRequest(
                "The URL must be one of http or https, such as https://hooks.example.com/errata, of at most "
                f"{MAX_URL_CHARS} visible ASCII characters."
            )
        if parts.username is not None or parts.fragment:
            raise InvalidRequest("The URL must have neither a name and password nor a fragment: leave them out.")
        with suppress(ValueError):  # names are checked once they are resolved
            self._check_address(host, ip_address(host))

    def _check_address(self, host: str, address: Address) -> None:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        seen = mapped or address
        if _as_sent(host) in self._names or any(seen in each for each in self._networks):
            return
        inner = isinstance(seen, IPv6Address) and (seen not in UNICAST or seen.sixtofour or seen.teredo)
        if not seen.is_global or seen.is_multicast or inner:
            raise InvalidRequest(
                f"{host} is no public address ({seen}), and nothing is sent there unless the operator allows it: name "
                "the host or its network in ERRATA_WEBHOOK_HOSTS."
            )

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a body by POST; returns the status of the answer. Raises Unreachable."""
        try:
            async with asyncio.timeout(LONGEST_S):
                return await self._sent(url, body, headers)
        except TimeoutError:
            raise Unreachable(f"It did not answer within {LONGEST_S:g} seconds.") from None
        except InvalidRequest as error:
            raise Unreachable(error.message) from None
        except (UnicodeError, httpx.InvalidURL):
            raise Unreachable("Its URL holds a name that no host can have.") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"It did not answer: {type(error).__name__}.") from None

    async def _sent(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.check(url)
        parts = httpx.URL(url)
        # as the URL has it: `host` would decode xn--, and Python's resolver encode it by an older rule, to another name
        host = parts.raw_host.decode("ascii")
        try:
            addresses = await self._resolve(host, parts.port or PORTS[parts.scheme])
        except OSError as error:
            raise Unreachable(f"Its name cannot be resolved: {error.strerror or error}.") from None
        for each in addresses:
            self._check_address(host, ip_address(each.partition("%")[0]))
        if not addresses:
            raise Unreachable("Its name has no address.")
        pinned = parts.copy_with(host=addresses[0])
        named = {**headers, "Host": parts.netloc.decode("ascii"), "User-Agent": "Errata"}
        extensions = {"sni_hostname": host} if parts.scheme == "https" else {}
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, transport=self._transport) as client,
            client.stream("POST", pinned, content=body, headers=named, extensions=extensions) as answer,
        ):
            return answer.status_code


def _as_sent(host: str) -> str:
    """A host as a request names it: in lower case, and in ASCII."""
    try:
        return httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
    except httpx.InvalidURL:  # a network, or no host at all
        return host.casefold()
