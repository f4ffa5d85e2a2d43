"""Access control: keys, roles and rates, decided from the head of a request before any byte of its body is read.

Pure ASGI. Depends on paths, not on the use cases. A path that the table does not name requires an admin, so that a new
route starts out closed.
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
from app.service.feedback import CURRENT_KEY

OPEN = frozenset({"/healthz", "/readyz", "/health", "/info", "/docs", "/openapi.json"})
"""The paths for orchestrators and the description of the API, which have neither key nor limit."""
OPEN_BELOW = ("/docs/",)
"""The paths of the assets that those pages show."""

LOOKED_AT = frozenset(
    {"edits", "log", "editors", "metrics", "snapshots", "probes", "recent", "jobs", "scope", "namespaces", "switch"}
    | {"policy", "proposals", "feedback"}
)
"""The first parts of the paths that a reader may see."""


REACHED = frozenset(
    {
        "", "generate", "generate_stream", "v1", "edit", "edits", "rollback", "probes", "recent", "scope", "jobs",
        "namespaces", "switch", "editors", "proposals",
    }
)  # fmt: skip
"""The first parts of the paths open to a key for some namespaces: each route there checks the namespaces concerned."""


def right_of(method: str, path: str) -> Right | None:
    """The right that a request needs; None if it needs none."""
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
    ):  # for edits: no route takes it, and the answer names the right one
        return Right.EDIT
    return Right.ADMIN


def _is_own(path: str) -> bool:
    """True if the path is an action of the proposal's own maker."""
    return path.endswith("/withdraw")


def _first(path: str) -> str:
    """The first part of a path."""
    return path.split("/")[1] if path.startswith("/") else ""


class Door:
    """The check of keys and rates that all entrances of an app share.

    `keys` returns those of the ledger: while none was ever created, everybody who reaches the server is admitted.
    `rate` is a limit such as `600/minute`, per key, or per address if no key is required.
    """

    def __init__(self, *, keys: Callable[[], Mapping[str, Key]], rate: str | None) -> None:
        self._keys = keys
        self._rate = None if rate is None else parse(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._has_had_keys = False

    @property
    def requires_keys(self) -> bool:
        """True if a key is required. This stays true once there was a key: a log that is wiped or restored while the
        server runs must not open the door."""
        self._has_had_keys = self._has_had_keys or bool(self._keys())
        return self._has_had_keys

    def key(self, text: str) -> Key:
        """The live key with this text. Raises Unauthenticated."""
        key = key_of(text.strip(), self._keys())
        if key is None:
            raise Unauthenticated(
                "The key is not known here, or was revoked: ask an admin for another. "
                "See /help/troubleshooting#keys-and-rights."
            )
        return key

    def known(self, key_id: str) -> Key | None:
        """A key that was presented before, if it is not revoked."""
        key = self._keys().get(key_id)
        return None if key is None or key.revoked_at_s is not None else key

    def count(self, who: str) -> None:
        """Count a request against the rate. Raises RateLimited."""
        if self._rate is None or self._limiter.hit(self._rate, who):
            return
        reset_at_s = self._limiter.get_window_stats(self._rate, who).reset_time
        raise RateLimited(
            f"More than {self._rate} came from here: ask again later. See /help/troubleshooting#too-busy.",
            retry_after_s=math.ceil(reset_at_s - time.time()),
        )


def check_right(key: Key | None, right: Right) -> None:
    """Check that a key has a right. Raises Forbidden. Without a key, on a server that requires none, everything is
    allowed."""
    if key is not None and right not in RIGHTS[key.role]:
        proposes = right is Right.EDIT and Right.PROPOSE in RIGHTS[key.role]
        raise Forbidden(
            f"A key of the role {key.role} may not do this: it needs the right to {right}. "
            + ("It may propose edits, by POST /edit: whoever edits can approve them, or do this. " if proposes else "")
            + "See /help/operation#keys-and-roles."
        )


class Gate:
    """The API's entrance. Paths at or below one of `pages` are let through, as pages have an entrance of their own.
    While no key is required, neither entrance serves `strangers`: web pages of other sites."""

    def __init__(self, app: ASGIApp, *, door: Door, strangers: Strangers, pages: Sequence[str] = ()) -> None:
        self._app = app
        self._door, self._strangers = door, strangers
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            page, right = self._is_page(scope["path"]), right_of(scope["method"], scope["path"])
            if (page or right is not None) and not self._door.requires_keys:
                self._strangers.check(Headers(scope=scope))
            if right is not None and not page:
                client = scope.get("client")
                address = client[0] if client else ""
                try:
                    key = self._key(Headers(scope=scope), right, scope["path"])
                except Unauthenticated:
                    self._door.count(f"refused {address}")  # otherwise keys could be tried as fast as they can be sent
                    raise
                scope.setdefault("state", {})["key"] = key
                CURRENT_KEY.set(None if key is None else key.id)
                self._door.count(address if key is None else key.id)
        await self._app(scope, receive, send)

    def _is_page(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self._pages)

    def _key(self, headers: Headers, right: Right, path: str) -> Key | None:
        if not self._door.requires_keys:
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
