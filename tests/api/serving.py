"""Two ways to reach the app under test: through ASGI alone, and over a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.api.app import create_app
from app.api.patience import Patience
from tests.api.fake_service import FakeService

MAX_BODY_BYTES = 100_000


class Caller:
    """Sends one request at a time to an app, without a socket."""

    def __init__(self, service: FakeService, rate_limit: str | None = None, **more: Any) -> None:
        self.service = service
        more.setdefault("allowed_hosts", ["errata"])
        self.app = create_app(service, max_body_bytes=MAX_BODY_BYTES, rate_limit=rate_limit, **more)  # type: ignore[arg-type]

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("10.1.2.3", 4567))
            async with httpx.AsyncClient(transport=transport, base_url="http://errata") as client:
                return await client.request(method, path, **more)

        return asyncio.run(call())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self("POST", path, json=body, **more) if body is not None else self("POST", path, **more)


@contextmanager
def live_server(service: FakeService, app: Any = None) -> Iterator[str]:
    """The app, or another one, behind uvicorn on a free port of loopback, in a thread; its address."""
    app = app or create_app(service, max_body_bytes=MAX_BODY_BYTES)  # type: ignore[arg-type]
    config = uvicorn.Config(
        app, http=Patience, host="127.0.0.1", port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(60), "the server did not start"
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()
        assert not thread.is_alive(), "the server did not stop"
