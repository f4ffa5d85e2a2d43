"""One replica: a server of several over one log, with Ray Serve in place of a listener. Does not import ray."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware import REQUEST_ID
from app.domain.errors import InvalidRequest
from app.store.open import REDIS_SCHEMES

if TYPE_CHECKING:
    from app.config import Settings
    from app.service.service import Service

REPLICA = "X-Errata-Replica"
"""The header that names the replica that answered."""
ANSWERS = ("/generate", "/v1/")
"""The beginnings of the paths under which the model answers, besides `/`."""
SEE = "See /help/operation#ray."
_log = logging.getLogger(__name__)


def check_store(url: str, most_replicas: int) -> None:
    """Raises InvalidRequest unless that many replicas, on whatever nodes, would share the log."""
    scheme = urlsplit(url).scheme
    if most_replicas > 1 and scheme not in REDIS_SCHEMES:
        raise InvalidRequest(
            f"Up to {most_replicas} replicas cannot share the store {scheme}://: each node would have its own log. "
            f"Name a Redis in ERRATA_STORE (redis://host:6379/0), or deploy one replica (num_replicas: 1, and no "
            f"autoscaling_config). {SEE}"
        )


class Replica:
    """A server whose life Serve directs: `build` before it gets any request, `check_health` meanwhile, `stop` after its
    last one."""

    def __init__(
        self,
        settings: "Settings",
        name: str,
        most_replicas: int,
        load: "Callable[[Settings], Service] | None" = None,
    ) -> None:
        """`most_replicas` is the number that the deployment may grow to; `load` makes the service, on a thread. Raises
        InvalidRequest for a log that they would not share."""
        check_store(settings.store, most_replicas)
        self._settings, self._name, self._load = settings, name, load or load_service
        self._service: Service | None = None
        self._life = AsyncExitStack()

    async def build(self) -> ASGIApp:
        """The app, started: its model is loaded, and it knows the log up to its head. Raises the errors of model and
        store, and InvalidRequest if anyone could edit."""
        from app.api.app import create_app
        from app.bootstrap import settle

        settings = self._settings
        # Serve watches the event loop, which loading would block
        service = await asyncio.to_thread(self._load, settings)
        app = create_app(
            service,
            max_body_bytes=settings.max_body_bytes,
            rate_limit=settings.rate_limit,
            cors_origins=settings.cors_origins,
            allowed_hosts=settings.allowed_hosts,
            trusted_proxies=settings.trusted_proxies,
            started=settle,
        )
        await self._life.enter_async_context(app.router.lifespan_context(app))
        if not (service.records.ledger.keys or settings.allow_anonymous):
            await self._life.aclose()
            raise InvalidRequest(
                "Anyone who reaches Serve's proxies could edit the model: make a key first (errata keys create --role "
                "admin --name you, with ERRATA_STORE as here), or set ERRATA_ALLOW_ANONYMOUS=true if something else "
                f"keeps strangers out. {SEE}"
            )
        self._service = service
        _log.info("Replica %s is ready at revision %d", self._name, service.revision)
        return NamedApp(app, self._name)

    async def check_health(self) -> None:
        """Raises RuntimeError if only another replica in its place would help.

        A log that is unreachable, or at odds with what was applied, is no such reason: this replica still answers from
        memory; a new one could not, or would accept the other history as the right one.
        """
        if self._service is not None and not self._service.alive:
            raise RuntimeError("The engine has stopped: the replica has to be replaced.")

    async def stop(self) -> None:
        """Let edits under way end, within the settings' `stop_grace_s`; Serve waited for the answers. Idempotent."""
        if self._service is not None:
            asyncio.get_running_loop().call_later(self._settings.stop_grace_s, self._service.cut_short)
        await self._life.aclose()


class NamedApp:
    """The app as Serve calls it. Answers name the replica. The app is started before Serve gets it, because Serve hides
    why an app's own start failed.

    Serve cancels a request whose client has left, which would end an edit under way; behind a listener it goes on. A
    client that asks again under the same key, after a timeout of its own, would begin anew each time.
    """

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app, self._name = app, name
        self._changes: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        asked_under = Headers(scope=scope).get(REQUEST_ID)

        left = False

        async def send_named(message: Message) -> None:
            if left:
                return
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REPLICA] = self._name
                if headers.get(REQUEST_ID) == asked_under:
                    del headers[REQUEST_ID]  # Serve's proxy, which named the request, adds the same again
            await send(message)

        if scope["type"] != "http" or scope["method"] == "GET" or _is_answer(scope["path"]):
            await self._app(scope, receive, send_named)
            return
        change = asyncio.ensure_future(self._app(scope, receive, send_named))
        self._changes.add(change)  # the event loop itself would forget it
        change.add_done_callback(self._changes.discard)
        try:
            await asyncio.shield(change)
        except asyncio.CancelledError:
            left = True
            raise


def _is_answer(path: str) -> bool:
    return path == "/" or path.startswith(ANSWERS)


def load_service(settings: "Settings") -> "Service":
    """The service of a process that is a replica's own. Raises the errors of model and store."""
    from app.bootstrap import build_service
    from app.cli.log_format import configure, take_over_libraries

    configure(settings.log_level, settings.log_format)
    service = build_service(settings)
    take_over_libraries()
    return service
