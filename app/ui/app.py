"""The pages for people, around one service, beside the API: pages under /ui, documentation under /help."""

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from app.api.gate import Door
from app.api.metrics import Metrics
from app.ui import ask, edits, health, namespaces, notifications, reported, sign_in, timeline, webhooks
from app.ui.assets import shipped_assets
from app.ui.audit import AuditPages
from app.ui.correction import CorrectionPages
from app.ui.desk import HERE, Desk, environment
from app.ui.help import Help
from app.ui.promotion import PromotionPages
from app.ui.proposals import ProposalPages
from app.ui.protected import ProtectedPages
from app.ui.sessions import Sessions
from app.ui.sheet_pages import SheetPages
from app.ui.sheets import Sheets
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.service import Service


def pages(service: "Service", door: Door, metrics: Metrics, *, leaving: asyncio.Event | None = None) -> list[BaseRoute]:
    """The routes of the pages. `leaving` is set when the server is told to stop."""
    assets = shipped_assets()
    desk = Desk(service, door, metrics, Sessions(), environment(assets), leaving or asyncio.Event())

    sheets = Sheets()

    async def first(visit: Visit) -> Response:
        """Redirect to the first page: a visitor whose key may only read begins with the list of edits."""
        return visit.to(f"{HERE}/edits" if visit.can("read") and not visit.can("generate") else f"{HERE}/ask")

    async def lost(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await desk.error(request, error)

    app = Starlette(
        routes=[
            desk.route("/", None, get=first),
            Route("/static/{mark}/{name}", assets.answer, methods=["GET"]),
            *sign_in.routes(desk),
            *ask.routes(desk),
            *CorrectionPages(desk).routes(),
            *SheetPages(desk, sheets).routes(),
            *PromotionPages(desk, sheets).routes(),
            *edits.routes(desk),
            *ProposalPages(desk).routes(),
            *reported.routes(desk),
            *timeline.routes(desk),
            *AuditPages(desk).routes(),
            *namespaces.routes(desk),
            *ProtectedPages(desk).routes(),
            *webhooks.routes(desk),
            *health.routes(desk),
            *notifications.routes(desk),
        ],
        exception_handlers={HTTPException: lost},
    )
    return [Mount(HERE, app), *Help(desk).routes()]
