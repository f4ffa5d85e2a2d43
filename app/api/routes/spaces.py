"""Namespaces, and the kill switches as they stand. Changes nothing."""

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter

from app.api.openapi import raises
from app.api.schemas.spaces import NamespaceOut, NamespacesOut, SwitchesOut, SwitchOut
from app.domain.errors import StoreCorrupt, StoreUnavailable
from app.service.spaces import explained, namespaces, switched_off, switches

if TYPE_CHECKING:
    from app.service.service import Service


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/namespaces", responses=raises(), summary="The namespaces")
    async def list_namespaces() -> NamespacesOut:
        found = namespaces(service.records.ledger, service.configured)
        return NamespacesOut(namespaces=[NamespaceOut.of(each) for each in found], revision=service.revision)

    @router.get("/switch", responses=raises(StoreUnavailable, StoreCorrupt), summary="The kill switches as they stand")
    async def read_switch() -> SwitchesOut:
        ledger, revision = service.records.ledger, service.revision
        found = switches(ledger)
        told = await asyncio.to_thread(lambda: [explained(service.records, each) for each in found])
        return SwitchesOut(
            on=found[0].on,
            off=list(switched_off(ledger)),
            switches=[SwitchOut.of(each) for each in told],
            revision=revision,
        )

    return router
