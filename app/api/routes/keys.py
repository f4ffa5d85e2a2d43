"""Routes that create, list and revoke API keys. They require an admin key for all namespaces."""

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path

from app.api.deps import Asker, because
from app.api.openapi import raises
from app.api.routes.changes import Why
from app.api.schemas.keys import KeyBody, KeyOut, KeysOut, MadeKey
from app.domain.errors import InvalidRequest, LostRace, RequestCancelled, StateConflict, StoreUnavailable, UnknownKey
from app.domain.keys import Role
from app.service.keyring import Keyring

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["0123456789ab"])]
EXAMPLES = {
    "staging": {
        "summary": "An editor of one namespace",
        "value": {"role": "editor", "name": "ci", "namespaces": ["staging"], "reason": "Ticket 4715"},
    }
}


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/keys", responses=raises(), summary="The keys")
    async def list_keys() -> KeysOut:
        return KeysOut(keys=list(map(KeyOut.like, service.records.ledger.keys.values())), revision=service.revision)

    @router.post(
        "/keys",
        status_code=201,
        responses=raises(StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True),
        summary="Make a key",
    )
    async def create_key(asker: Asker, body: Annotated[KeyBody, Body(openapi_examples=EXAMPLES)]) -> MadeKey:
        """The key itself is shown in this answer and nowhere else; an Idempotency-Key that was used before therefore
        creates none. Once the first key exists every request needs one, so the first must be an admin's, for all
        namespaces."""
        origin = because(asker, body.reason, "key", body)
        service.check_change(origin)
        if not service.records.ledger.keys and (body.role is not Role.ADMIN or body.namespaces):
            raise InvalidRequest(
                "The first key must be of the role admin and for all namespaces: from then on every request needs a "
                "key, and only an admin's key can make others."
            )
        if service.records.done_under(origin) is not None:
            raise StateConflict("Under this Idempotency-Key a key was made, and shown then: GET /keys lists it.")
        key, text = await Keyring(service.records, time.time).create(body.role, body.name, origin, body.namespaces)
        return MadeKey.like(key, key=text)

    @router.post(
        "/keys/{key_id}/revoke",
        responses=raises(UnknownKey, StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True),
        summary="Revoke a key",
    )
    async def revoke_key(key_id: Id, asker: Asker, body: Why = None) -> KeyOut:
        """Every server over the log refuses the key from then on."""
        origin = because(asker, None if body is None else body.reason, "revoke", key_id)
        service.check_change(origin)
        if service.records.done_under(origin) is None:
            await Keyring(service.records, time.time).revoke(key_id, origin)
        return KeyOut.like(service.records.ledger.keys[key_id])

    return router
