"""The way in for Errata to a vLLM that runs already, started with `--middleware errata_vllm.gate.EditGate` and more
arguments, which /help/vllm#a-vllm-that-runs-already lists.

The routes below /errata take ERRATA_VLLM_KEY of vLLM's environment and no other key. One server at a time holds a
session, in which it loads edits' rows. A completion that names another session than the present one is refused: the
workers do not hold the rows that it asks for, and an answer without them would be wrong.
"""

import asyncio
import base64
import hmac
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .names import SERVER_NAMES, VllmRefusal, check_names

KEY, LEAST_KEY = "ERRATA_VLLM_KEY", 16
PREFIX, SESSION_HEADER = "/errata/", "x-errata-session"
HELD_S = 30.0
"""The time for which a session is kept for a server that is not heard of and waits for no answer, in seconds."""


class EditGate:
    """ASGI middleware around vLLM's application."""

    def __init__(self, app: Any) -> None:
        """Raises ValueError without a key that can be kept secret."""
        self._app = app
        self._key = os.environ.get(KEY, "")
        if len(self._key) < LEAST_KEY:
            raise ValueError(f"{KEY} must be set, to a secret of at least {LEAST_KEY} characters")
        self._session = self._holder = ""
        self._heard = 0.0
        self._answering = 0
        self._changing = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        session = request.headers.get(SESSION_HEADER)
        if path.startswith(PREFIX):
            await (await self._answer(request, path.removeprefix(PREFIX), session))(scope, receive, send)
        elif session is not None and session != self._session:
            await _refused(409, "this session is over")(scope, receive, send)
        else:
            self._answering += session is not None
            try:
                await self._app(scope, receive, send)
            finally:
                self._answering -= session is not None
                if session is not None:
                    self._heard = time.monotonic()

    async def _answer(self, request: Request, name: str, session: str | None) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            return _refused(401, f"Errata's key is needed, which is {KEY} in vLLM's environment")
        routes: dict[str, Callable[[Request], Any]] = {
            "session": self._begin, "changes": self._change, "pulse": self._pulse, "end": self._end,
        }  # fmt: skip
        if name not in routes or request.method != "POST":
            return _refused(404, f"there are only POST {', '.join(PREFIX + each for each in routes)}")
        try:
            async with self._changing:
                if name != "session":
                    if session != self._session:
                        return _refused(409, "this session is over")
                    self._heard = time.monotonic()
                return JSONResponse(await routes[name](request))
        except (_Refusal, VllmRefusal) as refusal:
            return _refused(409, str(refusal))
        except Exception as error:
            return _refused(500, f"{type(error).__name__}: {error}")

    async def _begin(self, request: Request) -> dict[str, Any]:
        """Begin a session, in which the workers hold no rows yet, and tell what this vLLM is."""
        body, now = await request.json(), time.monotonic()
        held = self._answering or now - self._heard < HELD_S
        if self._session and body["holder"] != self._holder and held:
            raise _Refusal("another server uses this vLLM")
        check_names(request.app.state, SERVER_NAMES, "its server's")
        if getattr(request.app.state.args, "api_server_count", None) not in (None, 1):
            raise _Refusal(
                "it runs several API servers, of which each would know its own session: --api-server-count 1"
            )
        self._session, session = "", secrets.token_hex(16)
        workers = await self._call(request, "begin", session)
        digests = await self._call(request, "identify", body["weight"])
        self._session, self._holder, self._heard = session, body["holder"], now
        return {"session": session, "workers": workers, "digests": digests}

    async def _change(self, request: Request) -> dict[str, Any]:
        """Have the workers carry out changes, one after the other."""
        for each in (await request.json())["changes"]:
            value = (base64.b64decode(each["value"]),) if each["value"] else ()
            await self._call(request, each["do"], *each["arguments"], *value)
        return {}

    async def _pulse(self, request: Request) -> dict[str, Any]:
        await self._call(request, "pulse")
        return {}

    async def _end(self, request: Request) -> dict[str, Any]:
        """End the session: the workers release all rows."""
        self._session = ""
        await self._call(request, "begin", secrets.token_hex(16))  # a session that nobody can name
        return {}

    async def _call(self, request: Request, method: str, *arguments: Any) -> list[Any]:
        results: list[Any] = await request.app.state.engine_client.collective_rpc(f"errata_{method}", args=arguments)
        return results


class _Refusal(Exception):
    """The session is not available."""


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)
