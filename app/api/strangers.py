"""The protection of a server without keys: it accepts only requests for host names of its own, and none from foreign
web pages.

Any site can make its own name resolve to this machine (DNS rebinding). The browser of someone who visits that site then
sends the requests of its pages here, and only the host name in them gives them away.
"""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.domain.errors import Forbidden

LOCAL = ("localhost", "127.0.0.1", "::1")
ALL = "*"
SEE = "See /help/troubleshooting#requests-for-another-host."


class Strangers:
    """The check of hosts and origins. `hosts` are names, addresses or networks by which the server may be called
    besides LOCAL, or `*`; `origins` are those of pages that may call it, or `*`."""

    def __init__(self, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        given = {*LOCAL, *(host.casefold().strip("[]") for host in hosts)}
        self._networks = [network for network in map(_network, given) if network is not None]
        self._names = given
        self._origins = origins

    def check(self, headers: Headers) -> None:
        """Raises Forbidden for a request that may come from a foreign page."""
        called = headers.get("host", "")
        host = _hostname(called)
        if not self._known(host):
            raise Forbidden(
                f"While there is no key, only requests for localhost are accepted, and this one is for {host!r}: name "
                f"that host in ERRATA_ALLOWED_HOSTS, or make a key (errata keys create --role admin --name you). "
                f"{SEE}"
            )
        origin = headers.get("origin")
        if origin is None or ALL in self._origins or origin in self._origins:
            return
        if _netloc(origin) != called.casefold():
            raise Forbidden(
                f"While there is no key, pages of other origins may not call this server, and this one is of "
                f"{origin!r}: name it in ERRATA_CORS_ORIGINS, or make a key (errata keys create --role admin --name "
                f"you). {SEE}"
            )

    def _known(self, host: str) -> bool:
        if ALL in self._names or host in self._names:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _hostname(netloc: str) -> str:
    try:
        return (urlsplit(f"//{netloc}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """The host and port of an origin; None for a text that is no URL and so nobody's own origin."""
    try:
        return urlsplit(origin).netloc.casefold()
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
