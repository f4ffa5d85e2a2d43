"""Redis connections: URLs, timeouts, errors, and the check for durability. Knows no events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.sentinel import Sentinel

from app.domain.errors import InvalidRequest, StoreCorrupt, StoreUnavailable

CONNECT_S = 0.75
ANSWER_S = 1.25
"""An append takes two round trips and, if in doubt, a third over a new connection: all of them end within 5 s."""
BLOCK_S = 0.5
"""Upper limit of a blocking read in seconds; well below ANSWER_S, or every wait would look like a dead server."""
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
MIN_VERSION = (6, 2)
"""Oldest supported Redis version: the first with XADD NOMKSTREAM."""
FORMS = (
    "redis://[user:password@]host[:port][/db], rediss://... for TLS, or "
    "redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]"
)


def connect(url: str) -> tuple[Any, str]:
    """A client, not yet connected, and the URL without secrets. Raises InvalidRequest for an unreadable URL.

    redis-py's retries are off: after a lost answer they would append an event twice, or report a failure for an event
    that was kept.
    """
    try:
        parts = urlsplit(url)
        shown = _without_secrets(parts)
        options: dict[str, Any] = {
            "retry": None,
            "socket_connect_timeout": CONNECT_S,
            "socket_timeout": ANSWER_S,
            "health_check_interval": 0,
        }
        if parts.scheme == "redis+sentinel":
            return _by_sentinel(parts, options), shown
        return redis.Redis.from_url(url, **options), shown
    except (ValueError, TypeError) as error:
        # no detail: redis-py's messages may repeat parts of the URL
        raise InvalidRequest(f"The URL of Redis cannot be read: it is {FORMS}.") from error


def _by_sentinel(parts: SplitResult, options: dict[str, Any]) -> Any:
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    addresses = [(host, int(port or 26379)) for host, _, port in (each.partition(":") for each in hosts)]
    login = {
        name: unquote(value) for name, value in (("username", parts.username), ("password", parts.password)) if value
    }
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    tls = {"ssl": True} if query.pop("tls", "no") == "yes" else {}
    if query:
        raise ValueError("unknown options")
    make: Any = Sentinel  # redis-py does not type it
    sentinel = make(addresses, sentinel_kwargs={**options, **tls}, **options, **tls)
    return sentinel.master_for(service, db=int(db or 0), **login)


def disconnect(client: Any) -> None:
    """Closes a client's connections, including those to sentinels, which redis-py opens but does not close."""
    client.close()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in getattr(manager, "sentinels", ()):
        sentinel.close()


def _without_secrets(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def require_durable(client: Any, url: str, *, allow_not_durable: bool) -> bool:
    """True if an acknowledged write survives kill -9: append-only file on, always synced, no eviction.

    Raises InvalidRequest if it does not, unless `allow_not_durable`; StoreUnavailable if Redis does not answer.
    """
    with translated(url):
        about = client.info("server")
        version = tuple(int(part) for part in str(about["redis_version"]).split(".")[:2])
        if version < MIN_VERSION:
            raise InvalidRequest(f"{url} is Redis {about['redis_version']}: 6.2 or newer is needed.")
        try:
            configured = {name: client.config_get(name).get(name) for name in DURABLE}  # 6.2 takes one name at a time
        except ResponseError:
            configured = {}  # many hosted services hide their configuration, and what is hidden cannot be promised
    wrong = {name: configured.get(name, "unknown") for name, value in DURABLE.items() if configured.get(name) != value}
    if not wrong:
        return True
    if allow_not_durable:
        return False
    current = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    flags = " ".join(f"--{name} {DURABLE[name]}" for name in wrong)
    raise InvalidRequest(
        f"{url} may lose edits that were acknowledged ({current}): start redis-server with {flags}, or set "
        f"ERRATA_ALLOW_NOT_DURABLE=true to run without that promise."
    )


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Translates Redis errors into domain errors with a remedy."""
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        advice = "check the URL's name and password"
        raise StoreUnavailable(f"{url} refuses this user ({_kind(error)}): {advice}.") from error
    except OutOfMemoryError as error:
        raise StoreUnavailable(f"{url} is out of memory: raise its maxmemory.", retry_after_s=5) from error
    except ReadOnlyError as error:
        raise StoreUnavailable(f"{url} is a replica now and takes no writes.", retry_after_s=1) from error
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise StoreCorrupt(f"A key of Errata on {url} is not a stream: use another prefix or database.") from error
        if str(error).startswith(("LOADING", "BUSY", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN")):
            raise StoreUnavailable(f"{url} is not ready ({error}).", retry_after_s=1) from error
        raise StoreUnavailable(f"{url} refused a command ({error}).") from error
    except RedisError as error:
        if "certificate" in str(error).casefold():
            raise StoreUnavailable(
                f"{url} shows a certificate that is not trusted here: name its CA with ?ssl_ca_certs=FILE in the URL, "
                f"and the host as the certificate does."
            ) from error
        raise StoreUnavailable(
            f"{url} cannot be reached ({_kind(error)}): start it, or check the address.", retry_after_s=1
        ) from error


def _kind(error: Exception) -> str:
    return type(error).__name__
