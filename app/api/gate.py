"""Who may come in: keys, roles and rates, decided from the head of a request before a byte of its body is read.

Pure ASGI. Knows paths, no service. What the table does not name needs an admin, so that a new route is closed at first.
"""

import math
import time
from collections.abc import Callable, Mapping

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import Forbidden, RateLimited, Unauthenticated
from app.domain.keys import RIGHTS, Key, Right, key_of

OPEN = frozenset({"/healthz", "/readyz", "/health", "/info", "/docs", "/openapi.json"})
"""What orchestrators ask, and the description of the API: no key, no limit."""
OPEN_BELOW = ("/docs/",)
"""What those pages show."""

LOOKED_AT = frozenset(
    {"edits", "log", "editors", "metrics", "snapshots", "probes", "recent", "jobs", "scope", "namespaces", "switch"}
)
"""What a reader may see: the first part of a path."""


def right_of(method: str, path: str) -> Right | None:
    """The right that a request needs; None for none."""
    if path in OPEN or path.startswith(OPEN_BELOW) or (path == "/" and method in ("GET", "HEAD")):
        return None
    if path in ("/", "/generate", "/generate_stream") or path.startswith("/v1/"):
        return Right.GENERATE
    first = path.split("/")[1] if path.startswith("/") else ""
    if (method in ("GET", "HEAD") and first in LOOKED_AT) or (method == "POST" and first == "scope"):
        return Right.READ
    if (method == "POST" and first in ("edit", "edits", "rollback")) or (method == "PATCH" and first == "edits"):
        return Right.EDIT
    if method == "DELETE" and first in (
        "jobs",
        "edits",
    ):  # edits: no route takes it, and the answer names the right one
        return Right.EDIT
    return Right.ADMIN


class Gate:
    """`keys` are those of the ledger: while none was ever created, whoever reaches the server is let in.

    `rate` is such as `600/minute`, for each key, or for each address where keys are not asked for.
    """

    def __init__(self, app: ASGIApp, *, keys: Callable[[], Mapping[str, Key]], rate: str | None) -> None:
        self._app = app
        self._keys = keys
        self._rate = None if rate is None else parse(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._asked_for = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            right = right_of(scope["method"], scope["path"])
            if right is not None:
                client = scope.get("client")
                address = client[0] if client else ""
                try:
                    key = self._key(Headers(scope=scope), right)
                except Unauthenticated:
                    self._count(f"refused {address}")  # or keys could be tried as fast as they can be sent
                    raise
                scope.setdefault("state", {})["key"] = key
                self._count(address if key is None else key.id)
        await self._app(scope, receive, send)

    def _key(self, headers: Headers, right: Right) -> Key | None:
        keys = self._keys()
        # once there was a key: a log that was wiped or restored while the server runs must not open the door
        self._asked_for = self._asked_for or bool(keys)
        if not self._asked_for:
            return None
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not text:
            raise Unauthenticated("A key is needed here: send `Authorization: Bearer errata_...`.")
        key = key_of(text.strip(), keys)
        if key is None:
            raise Unauthenticated("The key is not known here, or was revoked: ask an admin for another.")
        if right not in RIGHTS[key.role]:
            raise Forbidden(f"A key of the role {key.role} may not do this: it needs the right to {right}.")
        return key

    def _count(self, who: str) -> None:
        if self._rate is None or self._limiter.hit(self._rate, who):
            return
        reset_at_s = self._limiter.get_window_stats(self._rate, who).reset_time
        raise RateLimited(
            f"More than {self._rate} came from here: ask again later.",
            retry_after_s=math.ceil(reset_at_s - time.time()),
        )
