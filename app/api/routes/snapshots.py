"""Routes that take and list snapshots. A snapshot is restored by starting a server over the log beside it."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from app.api.openapi import raises
from app.api.schemas.server import SnapshotOut, SnapshotsOut
from app.domain.errors import LostRace, RequestCancelled, StoreCorrupt, StoreUnavailable

if TYPE_CHECKING:
    from app.service.service import Service


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.post(
        "/snapshots",
        status_code=201,
        responses={
            200: {"description": "There is one of this revision already", "model": SnapshotOut},
            **raises(StoreUnavailable, StoreCorrupt, LostRace, RequestCancelled),
        },
        summary="Take a snapshot",
    )
    async def take_snapshot(response: Response) -> SnapshotOut:
        """A server starts from the snapshot instead of a long log. It is stored beside the log, and read back before
        the 201."""
        manifest, new = await service.take_snapshot()
        if not new:
            response.status_code = 200
        return SnapshotOut.of(manifest)

    @router.get("/snapshots", responses=raises(StoreUnavailable, StoreCorrupt), summary="List snapshots, newest first")
    async def list_snapshots() -> SnapshotsOut:
        return SnapshotsOut(snapshots=[SnapshotOut.of(manifest) for manifest in await service.snapshots.listed()])

    return router
