"""Routes for orchestrators and Prometheus. Independent of edits."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.metrics import Metrics
from app.api.openapi import raises
from app.api.schemas.server import Health, Info, StatusOut
from app.domain.errors import RequestCancelled

if TYPE_CHECKING:
    from app.service.service import Service


def routes(service: "Service", metrics: Metrics, version: str) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/healthz", summary="Check that the process answers")
    async def healthz() -> Health:
        return Health(status="ok")

    @router.get(
        "/health",
        response_class=Response,
        responses={**raises(RequestCancelled), 200: {"description": "Ready", "content": {}}},
        summary="Readiness, in the form of TGI",
    )
    async def health() -> Response:
        """The answer has no body if the server is ready."""
        status = service.status()
        if not status.ready:
            raise RequestCancelled(
                f"The server is not ready: {status.why_not}. See /help/troubleshooting#the-server-is-not-ready.",
                retry_after_s=1,
            )
        return Response()

    @router.get("/info", summary="The served model, in the form of TGI")
    async def info() -> Info:
        return Info.of(service.status(), service.answers.max_tokens, version)

    @router.get(
        "/readyz",
        responses={503: {"description": "Not ready: `why_not` says why", "model": StatusOut}},
        summary="Readiness and status",
    )
    async def readyz(response: Response) -> StatusOut:
        status = StatusOut.of(service.status())
        if not status.ready:
            response.status_code = 503
            response.headers["Retry-After"] = "1"
        return status

    @router.get(
        "/metrics",
        name="metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Metrics for Prometheus",
    )
    async def render() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
