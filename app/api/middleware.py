"""Handling around every request: its id, the size of its body, the headers of its answer, its log line; and HEAD.

Pure ASGI, so that streams pass through untouched. Independent of routes and service.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import answer_to
from app.service.feedback import CURRENT_REQUEST
from app.service.log_lines import collected, note

_log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
REVISION = "X-Errata-Revision"
BODY_S = 30.0
"""The time that a body may take to arrive, in seconds, from the start of its request."""
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


class Envelope:
    """The outermost middleware: whatever happens inside, exactly one answer with these headers goes out."""

    def __init__(
        self, app: ASGIApp, *, revision: Callable[[], int], max_body_bytes: int, on_error: Callable[[int], None]
    ) -> None:
        self._app = app
        self._revision = revision
        self._max_body_bytes = max_body_bytes
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = sane_id(headers.get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        CURRENT_REQUEST.set(request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer[REQUEST_ID] = request_id
                answer[REVISION] = str(self._revision())
            await send(message)

        with collected() as facts:
            note(request_id=request_id, revision=self._revision())
            try:
                try:
                    self._check_length(headers)
                    _check_encoding(headers)
                    await self._app(scope, self._limited(receive), send_with_headers)
                except Exception as error:
                    if status:  # half an answer is out: it can only be broken off
                        raise
                    await answer_to(error, scope["path"])(scope, receive, send_with_headers)
            finally:
                if status >= 400:
                    self._on_error(status)
                _log_request(scope, status, time.perf_counter() - began, facts)

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        taken, whole, due_s = 0, False, time.monotonic() + BODY_S

        async def counted() -> Message:
            nonlocal taken, whole
            if whole:  # the only message left is the client's disconnect
                return await receive()
            try:
                async with asyncio.timeout(due_s - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The body was not there within {BODY_S:g} s: send it again.") from None
            whole = not message.get("more_body", False)
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._max_body_bytes:
                    raise self._too_large()  # an HTTPException, which FastAPI lets through while it reads a body
            return message

        return counted

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is too large: at most {self._max_body_bytes} bytes are allowed.")


def _log_request(scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
    """Write the request's log line, without its query, which may contain a prompt."""
    # raw_path, because a decoded path could contain a line break
    path = scope.get("raw_path", b"").decode("latin-1")
    fields: dict[str, Any] = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 4)}
    template = getattr(scope.get("route"), "path", None)
    if template is not None:
        fields["route"] = scope.get("root_path", "") + template
    key = scope["state"].get("key")
    if key is not None:
        fields["key"] = key.name
    said = "%s %s %d in %.1f ms", scope["method"], path, status, 1e3 * seconds
    _log.info(*said, extra={"kind": "request", **fields, **facts})


def _check_encoding(headers: Headers) -> None:
    """Refuse a compressed body by name: unpacked it may be of any size, and as it came it is not JSON."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise HTTPException(415, f"Bodies compressed with {encoding[:40]!r} are not taken: send the JSON as it is.")


def sane_id(given: str | None) -> str:
    """The client's own request id if it is fit for a log line, otherwise a new one."""
    return given if given is not None and _SANE.fullmatch(given) else uuid.uuid4().hex


class _Enough(OSError):
    """The error in a stream that continues after its head was sent, as servers raise it when a client has left."""


class Heads:
    """Middleware for `HEAD` as HTTP defines it: it calls the app with GET and passes on only the head of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
            elif message.get("more_body"):
                raise _Enough

        get = {**scope, "method": "GET"}
        try:
            await self._app(get, receive, send_head)
        except (_Enough, ClientDisconnect):
            return
        finally:  # where it was routed, which the log line tells
            scope.update({name: get[name] for name in ("route", "root_path") if name in get})
