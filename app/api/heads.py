"""`HEAD` as HTTP defines it: the answer of GET without its body. Pure ASGI; independent of the routes."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Enough(OSError):
    """Raised to a stream that continues after its head was sent, as servers do when a client has left."""


class Heads:
    """Middleware that calls the app with GET and passes on only the head of its answer."""

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

        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send_head)
        except (_Enough, ClientDisconnect):
            return
        finally:  # where it was routed, which the log line tells
            scope.update({name: asked[name] for name in ("route", "root_path") if name in asked})
