"""Routes that list and set up namespaces, and show the edit switches."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path

from app.api.deps import Asker, Holder, because
from app.api.openapi import raises
from app.api.schemas.base import Namespace
from app.api.schemas.spaces import NamespaceBody, NamespaceOut, NamespacesOut, SwitchesOut, SwitchOut
from app.domain.errors import LostRace, RequestCancelled, StateConflict, StoreCorrupt, StoreUnavailable
from app.domain.keys import check_reach
from app.service.namespaces import explained, namespaces, switched_off, switches

if TYPE_CHECKING:
    from app.service.service import Service

STAGING = {"staging": {"value": {"description": "Edits are tried here before they are promoted to production"}}}


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/namespaces", responses=raises(), summary="The namespaces")
    async def list_namespaces(holder: Holder) -> NamespacesOut:
        """A key for some namespaces sees only these."""
        everything = namespaces(service.records.ledger, service.configured)
        opened = [each for each in everything if holder is None or holder.opens(each.name)]
        return NamespacesOut(namespaces=[NamespaceOut.like(each) for each in opened], revision=service.revision)

    @router.put(
        "/namespaces/{namespace}",
        responses=raises(StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True),
        summary="Set up a namespace",
    )
    async def set_namespace(
        asker: Asker,
        holder: Holder,
        namespace: Annotated[Namespace, Path(examples=["staging"])],
        body: Annotated[NamespaceBody, Body(openapi_examples=STAGING)],
    ) -> NamespaceOut:
        """The namespace is listed from now on, with its description, whether or not it has any edits. Repeating the
        request changes nothing; another description replaces the previous one."""
        check_reach(holder, namespace)
        await service.set_namespace(namespace, body.description, because(asker, body.reason, namespace, body))
        known = namespaces(service.records.ledger, service.configured)
        return NamespaceOut.like(next(each for each in known if each.name == namespace))

    @router.get("/switch", responses=raises(StoreUnavailable, StoreCorrupt), summary="The state of the edit switches")
    async def read_switch(holder: Holder) -> SwitchesOut:
        """A key for some namespaces sees the switch of all namespaces and those of its own."""
        ledger, revision = service.records.ledger, service.revision
        shown = [
            each
            for each in switches(ledger)
            if each.namespace is None or holder is None or holder.opens(each.namespace)
        ]
        explanations = await asyncio.to_thread(lambda: [explained(service.records, each) for each in shown])
        return SwitchesOut(
            on=shown[0].on,
            off=[name for name in switched_off(ledger) if holder is None or holder.opens(name)],
            switches=[SwitchOut.of(each) for each in explanations],
            revision=revision,
        )

    return router
