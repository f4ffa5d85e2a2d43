"""Opens a log by its URL."""

from app.domain.errors import InvalidRequest
from app.store.base import Log
from app.store.chain import Chain
from app.store.memory import MemoryLog
from app.store.seal import Seal
from app.store.sqlite import SqliteLog

FORMS = "sqlite:///relative.db, sqlite:////absolute/path.db, redis://host:port/db or memory:// (lost at the end)"
REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel")


def open_log(
    url: str,
    *,
    redis_prefix: str = "errata",
    allow_not_durable: bool = False,
    secret: str | None = None,
) -> Log:
    """Opens the log that a URL names. `secret` seals every entry and snapshot; a log that was begun without it or with
    another is refused.

    Raises InvalidRequest for a URL that names no log. Messages never repeat the URL, which may hold a password.
    """
    chain = Chain(seal=Seal(secret))
    scheme, separator, rest = url.partition("://")
    if url == "memory://":
        return MemoryLog(chain)
    if scheme in REDIS_SCHEMES and separator:
        from app.store.redis import RedisLog  # imported late: its client would take a fifth of a command's start

        return RedisLog(url, chain, prefix=redis_prefix, allow_not_durable=allow_not_durable)
    if scheme != "sqlite" or not rest.startswith("/"):
        raise InvalidRequest(f"The store's URL (scheme {scheme if separator else 'missing'!r}) is none of {FORMS}.")
    path = rest.removeprefix("/")
    if not path or path == ":memory:":
        raise InvalidRequest(f"The store's URL names no file: use {FORMS}.")
    if "?" in path or "#" in path:
        raise InvalidRequest("The store's URL holds '?' or '#': a sqlite URL is a plain path and takes no options.")
    return SqliteLog(path, chain)
