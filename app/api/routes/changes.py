"""Routes that roll edits back, disable and enable them. They make no edits and erase nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body

from app.api.deps import Asker, Holder, Read, because
from app.api.openapi import raises
from app.api.routes.edits import Id, check_edits
from app.api.schemas.corrections import ReasonBody, RollbackBody, SwitchBody
from app.api.schemas.edits import ChangedEdits, EditOut
from app.api.schemas.spaces import SwitchAnswer
from app.domain.errors import (
    LostRace,
    PreconditionFailed,
    RequestCancelled,
    ScopeConflict,
    StateConflict,
    StoreUnavailable,
    UnknownEdit,
    UnknownNamespace,
)
from app.domain.keys import check_reach
from app.service.outlook import check_switch, since, would_roll_back
from app.service.views import EditView

if TYPE_CHECKING:
    from app.service.service import Service

Why = Annotated[ReasonBody | None, Body(openapi_examples={"why": {"value": {"reason": "Ticket 4712: it was right"}}})]
BACK = {
    "to a revision": {"value": {"to_revision": 12, "reason": "The import of Tuesday was wrong"}},
    "these": {"value": {"ids": ["ed_0123456789abcdef", "ed_fedcba9876543210"]}},
}
SWITCH = {
    "all off": {"summary": "No edit answers anyone", "value": {"on": False, "reason": "Incident 12"}},
    "one namespace on": {"value": {"on": True, "namespace": "support"}},
}
ERRORS = raises(UnknownEdit, StateConflict, PreconditionFailed, StoreUnavailable, LostRace, RequestCancelled, body=True)


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["edits"], responses=ERRORS)

    @router.post("/edits/{edit_id}/rollback", summary="Take an edit back")
    async def rollback_one(edit_id: Id, asker: Asker, holder: Holder, read: Read, body: Why = None) -> EditOut:
        """Edits that it superseded become live again. The edit and its history remain visible."""
        check_edits(service, holder, [edit_id])
        return _one(await service.roll_back([edit_id], _because(asker, body, "rollback", edit_id), read))

    @router.post("/edits/{edit_id}/disable", summary="Take an edit out for a while")
    async def disable(edit_id: Id, asker: Asker, holder: Holder, read: Read, body: Why = None) -> EditOut:
        check_edits(service, holder, [edit_id])
        return _one(await service.disable([edit_id], _because(asker, body, "disable", edit_id), read))

    @router.post("/edits/{edit_id}/enable", responses=raises(ScopeConflict), summary="Let a disabled edit answer again")
    async def enable(edit_id: Id, asker: Asker, holder: Holder, read: Read, body: Why = None) -> EditOut:
        """The server refuses this (409) if an edit that was made meanwhile answers its prompts with another target."""
        check_edits(service, holder, [edit_id])
        return _one(await service.enable([edit_id], _because(asker, body, "enable", edit_id), read))

    @router.post(
        "/rollback", responses=raises(UnknownEdit, UnknownNamespace), summary="Take many edits back, in one step"
    )
    async def rollback(
        asker: Asker,
        holder: Holder,
        read: Read,
        body: Annotated[RollbackBody, Body(openapi_examples=BACK)],
    ) -> ChangedEdits:
        """Rolls back the edits named, or every edit of a namespace that was committed after a revision, as one new
        revision.

        With `If-Match` nothing is rolled back if any of it changed, or was added, since the revision that was read
        (412).
        """
        records, to = service.records, body.to_revision
        space = None if body.all_namespaces else body.namespace
        if to is not None:
            check_reach(holder, space)
        check_edits(service, holder, body.ids or ())
        if body.dry_run:
            ids = body.ids if to is None else since(records.ledger, to, space, service.configured, read)
            going = tuple(map(records.view, dict.fromkeys(ids or ())))
            coming = would_roll_back(records, [view.edit.id for view in going], read)
        else:
            origin = because(asker, body.reason, "rollback", body)
            if to is not None:
                going = await service.roll_back_to(to, space, origin, read)
            else:
                going = await service.roll_back(body.ids or [], origin, read)
            coming = records.turned_with(going)
        return ChangedEdits(
            edits=[EditOut.of(view) for view in going],
            revived=[EditOut.of(view) for view in coming],
            dry_run=body.dry_run,
            revision=service.revision,
        )

    @router.post("/switch", responses=raises(UnknownNamespace), summary="The edit switch")
    async def switch(
        asker: Asker,
        holder: Holder,
        body: Annotated[SwitchBody, Body(openapi_examples=SWITCH)],
    ) -> SwitchAnswer:
        """While the switch is off, the base model answers every request of the namespace, or of all (null)."""
        check_reach(holder, body.namespace)
        if body.dry_run:
            check_switch(service.records.ledger, body.namespace, body.on, service.configured)
            revision = service.revision
        else:
            origin = because(asker, body.reason, "switch", body)
            revision = await service.set_switch(body.namespace, body.on, origin)
        return SwitchAnswer(
            on=body.on,
            namespace=body.namespace,
            live_edits=service.records.ledger.live_count(body.namespace),
            dry_run=body.dry_run,
            revision=revision,
        )

    return router


def _because(asker: Asker, body: ReasonBody | None, *arguments: object) -> Asker:
    return because(asker, None if body is None else body.reason, *arguments, body)


def _one(views: Sequence[EditView]) -> EditOut:
    (view,) = views
    return EditOut.of(view)
