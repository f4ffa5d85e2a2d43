"""Who may come in: keys, roles and rates, decided from the head of a request before a byte of its body is read.

Pure ASGI. Knows paths, no service. What the table does not name needs an admin, so that a new route is closed at first.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.strangers import Strangers
from app.domain.errors import Forbidden, RateLimited, Unauthenticated
from app.domain.keys import RIGHTS, Key, Right, check_reach, key_of

OPEN = frozenset({"/healthz", "/readyz", "/health", "/info", "/docs", "/openapi.json"})
"""What orchestrators ask, and the description of the API: no key, no limit."""
OPEN_BELOW = ("/docs/",)
"""What those pages show."""

LOOKED_AT = frozenset(
    {"edits", "log", "editors", "metrics", "snapshots", "probes", "recent", "jobs", "scope", "namespaces", "switch"}
    | {"policy", "proposals", "feedback"}
)
"""What a reader may see: the first part of a path."""


REACHED = frozenset(
    {
        "", "generate", "generate_stream", "v1", "edit", "edits", "rollback", "probes", "recent", "scope", "jobs",
        "namespaces", "switch", "editors",
    }
)  # fmt: skip
"""What a key for some namespaces may ask at all: each route there looks at the namespaces that it is about."""


def right_of(method: str, path: str) -> Right | None:
    """The right that a request needs; None for none."""
    if path in OPEN or path.startswith(OPEN_BELOW) or (path == "/" and method in ("GET", "HEAD")):
        return None
    if path in ("/", "/generate", "/generate_stream") or path.startswith("/v1/"):
        return Right.GENERATE
    first = _first(path)
    if method == "POST" and path == "/feedback":
        return Right.GENERATE
    if (method in ("GET", "HEAD") and first in LOOKED_AT) or (method == "POST" and first == "scope"):
        return Right.READ
    if (method == "POST" and first == "edit") or (first == "proposals" and (method == "PUT" or _is_own(path))):
        return Right.PROPOSE
    if (method == "POST" and first in ("edits", "rollback", "proposals")) or (method == "PATCH" and first == "edits"):
        return Right.EDIT
    if method == "POST" and path == "/probes/check":
        return Right.EDIT
    if method == "DELETE" and path.startswith("/feedback/"):
        return Right.EDIT
    if method == "DELETE" and first in (
        "jobs",
        "edits",
    ):  # edits: no route takes it, and the answer names the right one
        return Right.EDIT
    return Right.ADMIN


def _is_own(path: str) -> bool:
    """What a proposal's maker does with it."""
    return path.endswith("/withdraw")


def _first(path: str) -> str:
    """The first part of a path."""
    return path.split("/")[1] if path.startswith("/") else ""


class Door:
    """Who is let in, and how often: one for all entrances of an app.

    `keys` are those of the ledger: while none was ever created, whoever reaches the server is let in. `rate` is such as
    `600/minute`, for each key, or for each address where keys are not asked for.
    """

    def __init__(self, *, keys: Callable[[], Mapping[str, Key]], rate: str | None) -> None:
        self._keys = keys
        self._rate = None if rate is None else parse(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._asked_for = False

    @property
    def asks_for_keys(self) -> bool:
        """Once there was a key, for good: a log that was wiped or restored while the server runs must not open the
        door."""
        self._asked_for = self._asked_for or bool(self._keys())
        return self._asked_for

    def key(self, text: str) -> Key:
        """The live key that a text is. Raises Unauthenticated."""
        key = key_of(text.strip(), self._keys())
        if key is None:
            raise Unauthenticated(
                "The key is not known here, or was revoked: ask an admin for another. "
                "See /help/troubleshooting#keys-and-rights."
            )
        return key

    def known(self, key_id: str) -> Key | None:
        """A key that was shown before, as long as it is not revoked."""
        key = self._keys().get(key_id)
        return None if key is None or key.revoked_at_s is not None else key

    def count(self, who: str) -> None:
        """Raises RateLimited."""
        if self._rate is None or self._limiter.hit(self._rate, who):
            return
        reset_at_s = self._limiter.get_window_stats(self._rate, who).reset_time
        raise RateLimited(
            f"More than {self._rate} came from here: ask again later. See /help/troubleshooting#too-busy.",
            retry_after_s=math.ceil(reset_at_s - time.time()),
        )


def check_right(key: Key | None, right: Right) -> None:
    """Raises Forbidden. Without a key, on a server that asks for none, everything is allowed."""
    if key is not None and right not in RIGHTS[key.role]:
        proposes = right is Right.EDIT and Right.PROPOSE in RIGHTS[key.role]
        raise Forbidden(
            f"A key of the role {key.role} may not do this: it needs the right to {right}. "
            + ("It may propose edits, by POST /edit: whoever edits can approve them, or do this. " if proposes else "")
            + "See /help/operation#keys-and-roles."
        )


class Gate:
    """The API's entrance. Pages have one of their own: what is at or below one of `pages` is let through. While no key
    is asked for, neither serves `strangers`: web pages of others.
    """

    def __init__(self, app: ASGIApp, *, door: Door, strangers: Strangers, pages: Sequence[str] = ()) -> None:
        self._app = app
        self._door, self._strangers = door, strangers
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            page, right = self._is_page(scope["path"]), right_of(scope["method"], scope["path"])
            if (page or right is not None) and not self._door.asks_for_keys:
                self._strangers.check(Headers(scope=scope))
            if right is not None and not page:
                client = scope.get("client")
                address = client[0] if client else ""
                try:
                    key = self._key(Headers(scope=scope), right, scope["path"])
                except Unauthenticated:
                    self._door.count(f"refused {address}")  # or keys could be tried as fast as they can be sent
                    raise
                scope.setdefault("state", {})["key"] = key
                self._door.count(address if key is None else key.id)
        await self._app(scope, receive, send)

    def _is_page(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self._pages)

    def _key(self, headers: Headers, right: Right, path: str) -> Key | None:
        if not self._door.asks_for_keys:
            return None
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not text:
            raise Unauthenticated(
                "A key is needed here: send `Authorization: Bearer errata_...`. See /help/operation#keys-and-roles."
            )
        key = self._door.key(text)
        check_right(key, right)
        if _first(path) not in REACHED:
            check_reach(key, None)
        return key
