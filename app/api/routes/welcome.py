"""The entrance for browsers: `/`, and the description of the API with its assets, which ship in the package."""

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.api.schemas.server import Greeting

if TYPE_CHECKING:
    from app.service.service import Service

ASSETS = Path(__file__).parents[1] / "assets"
"""The folder of Swagger UI as its authors publish it: a server without internet access must still show its API."""


def routes(service: "Service", version: str, *, first: str = "docs") -> APIRouter:
    """`first` is the path to which a browser that asks for `/` is redirected."""
    router = APIRouter(tags=["server"])

    @router.get(
        "/",
        name="greeting",
        responses={307: {"description": "To a browser: the way to the pages", "content": {}}},
        response_model=Greeting,
        summary="Describe this server, with links",
    )
    async def greeting(request: Request) -> Response:
        """JSON, or a redirect if the client accepts HTML, as a browser does."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(first)
        body = Greeting(version=version, model=service.answers.model_name)
        return Response(body.model_dump_json(), media_type="application/json")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # addresses without a leading slash: behind a proxy the server may be below a path of the proxy's own
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Errata: API",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
        )

    return router
