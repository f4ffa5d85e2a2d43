"""The app around a service: its life, middleware and routes. Independent of model and settings."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.api import errors
from app.api.gate import Door, Gate
from app.api.metrics import Metrics
from app.api.middleware import REQUEST_ID, REVISION, Envelope, Heads
from app.api.openapi import EDITS, NOT_GIVEN, describe
from app.api.routes import (
    changes,
    edits,
    feedback,
    generate,
    health,
    jobs,
    keys,
    log,
    openai,
    promote,
    proposals,
    scope,
    snapshots,
    spaces,
    webhooks,
    welcome,
)
from app.api.strangers import Strangers
from app.version import version

if TYPE_CHECKING:
    from app.service.service import Service  # imports torch, which the API itself does without

DESCRIPTION = """\
A frozen model serves `/generate`; a correction posted to `/edit` is live seconds later for every request that asks the
same thing, and for no other; `/edits` shows who changed what, and takes it back. Every change raises the **revision**
by one; every answer names it in `X-Errata-Revision`. Errors are `application/problem+json`."""
PAGES = "/ui"
"""The path of the pages for people, on an app that has them."""
BELOW = (PAGES, "/help")
"""The paths at and below which the pages themselves decide who may see them."""
TAGS = [
    {"name": "generate", "description": "Ask the model."},
    {"name": "openai", "description": "Ask the model as OpenAI is asked: point OpenAI's clients at `/v1`."},
    {"name": "edits", "description": "Correct it, see what was corrected, and take it back."},
    {"name": "server", "description": "The state of the server."},
]

EXPOSED = (REQUEST_ID, REVISION, EDITS, NOT_GIVEN, "Location", "ETag", "Retry-After", "Preference-Applied")
"""The headers of an answer that pages of other origins may read."""


def create_app(
    service: "Service",
    *,
    max_body_bytes: int = 8 * 2**20,
    rate_limit: str | None = None,
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    starting: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
    started: Callable[[], None] = lambda: None,
    pages: "Callable[[Service, Door, Metrics], Sequence[BaseRoute]] | None" = None,
) -> FastAPI:
    """An app that starts the service when it starts and stops it when it stops. `starting` is called with what the
    service is doing (text, steps done, steps in total), `started` once it has started. `cors_origins` are the origins
    whose pages may call the app, `*` all. `allowed_hosts` are the names by which it may be called while it has no key,
    besides localhost; `trusted_proxies` are the addresses and networks whose X-Forwarded-For is believed. `pages` makes
    the routes of the pages for people, which are at and below BELOW."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.start(starting)
        started()
        try:
            yield
        finally:
            await service.stop()

    metrics = Metrics(service.status)
    app = FastAPI(
        title="Errata",
        version=version(),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=life,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    door = Door(keys=lambda: service.records.ledger.keys, rate=rate_limit)
    app.add_middleware(Heads)
    strangers = Strangers(allowed_hosts, cors_origins)
    app.add_middleware(Gate, door=door, strangers=strangers, pages=BELOW if pages is not None else ())
    app.add_middleware(
        Envelope, revision=lambda: service.revision, max_body_bytes=max_body_bytes, on_error=metrics.error
    )
    if cors_origins:  # outermost: a browser shows a page only errors that carry its headers
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    if trusted_proxies:  # before the gate counts addresses, and before any is logged
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[*trusted_proxies])
    errors.install(app)
    app.include_router(generate.routes(service, metrics))
    app.include_router(openai.routes(service, metrics))
    app.include_router(edits.routes(service, metrics))
    app.include_router(promote.routes(service, metrics))
    app.include_router(jobs.routes(service))
    app.include_router(feedback.routes(service, metrics))
    app.include_router(proposals.routes(service, metrics))
    app.include_router(changes.routes(service))
    app.include_router(scope.routes(service))
    app.include_router(spaces.routes(service))
    app.include_router(keys.routes(service))
    app.include_router(webhooks.routes(service))
    app.include_router(log.routes(service))
    app.include_router(snapshots.routes(service))
    app.include_router(health.routes(service, metrics, app.version))
    app.include_router(welcome.routes(service, version(), first="docs" if pages is None else f"{PAGES[1:]}/"))
    app.mount("/docs", StaticFiles(directory=welcome.ASSETS), name="assets")
    if pages is not None:
        app.add_api_route(PAGES, lambda: RedirectResponse("ui/"), methods=["GET"], include_in_schema=False)
        app.router.routes.extend(pages(service, door, metrics))
    app.openapi = describe(app)  # type: ignore[method-assign]
    return app
