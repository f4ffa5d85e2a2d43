"""Namespaces with their switches and policies, and the keys, for admins."""

import time
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import Origin
from app.domain.keys import Right, Role
from app.service.keyring import MAX_NAME_CHARS, Keyring
from app.service.namespaces import explained, namespaces, switches
from app.ui.desk import HERE, Desk
from app.ui.visit import Visit


def routes(desk: Desk) -> list[Route]:
    see = partial(desk.route, right=Right.READ, reached=True)
    admin = partial(desk.route, right=Right.ADMIN)
    return [
        see("/namespaces", get=listing),
        admin("/namespaces/create", post=create, reached=True),
        admin("/namespaces/switch", get=ask_switch, post=switch, reached=True),
        admin("/namespaces/policy", get=ask_policy, post=set_policy),
        admin("/keys", get=keys, post=create_key),
        admin("/keys/revoke", post=revoke_key),
    ]


async def listing(visit: Visit) -> Response:
    return _listing(visit)


def _listing(visit: Visit, problem: Any = None) -> Response:
    records = visit.service.records
    return visit.page(
        "namespaces.html",
        status=200 if problem is None else problem["status"],
        title="Namespaces",
        spaces=[each for each in namespaces(records.ledger, visit.service.configured) if visit.opens(each.name)],
        switches=[
            explained(records, each)
            for each in switches(records.ledger)
            if each.namespace is None or visit.opens(each.namespace)
        ],
        changed="changed" in visit.query,
        made=visit.query.get("made", ""),
        problem=problem,
        typed={name: visit.form.get(name) for name in ("namespace", "description", "reason")},
    )


async def create(visit: Visit) -> Response:
    """Set up a namespace, or change its description."""
    form = visit.form
    namespace, description = form.get("namespace"), form.get("description")
    visit.check_reach(namespace)
    try:
        origin = visit.origin(form.reason(), "namespace", namespace, description)
        await visit.service.set_namespace(namespace, description, origin)
    except ErrataError as error:
        return _listing(visit, problem_of(error))
    return visit.to(f"{HERE}/namespaces", made=namespace)


# -- the switch


async def ask_switch(visit: Visit) -> Response:
    return _ask_switch(visit, visit.query.get("namespace", ""), visit.query.get("on") == "1")


def _ask_switch(visit: Visit, namespace: str, on: bool, problem: Any = None) -> Response:
    visit.check_reach(namespace or None)
    ledger = visit.service.records.ledger
    return visit.page(
        "switch.html",
        status=200 if problem is None else problem["status"],
        title=f"Switch edits {'on' if on else 'off'}",
        namespace=namespace,
        on=on,
        live=ledger.live_count(namespace) if namespace else ledger.live_count(),
        problem=problem,
        reason=visit.form.get("reason"),
    )


async def switch(visit: Visit) -> Response:
    namespace, on = visit.form.get("namespace"), visit.form.get("on") == "1"
    visit.check_reach(namespace or None)
    try:
        origin = visit.origin(visit.form.reason(), "switch", namespace, on)
        await visit.service.set_switch(namespace or None, on, origin)
    except ErrataError as error:
        return _ask_switch(visit, namespace, on, problem_of(error))
    return visit.to(f"{HERE}/namespaces", changed=1)


# -- the second person


async def ask_policy(visit: Visit) -> Response:
    return _ask_policy(visit, visit.query.get("namespace", "") or "default", visit.query.get("second") == "1")


def _ask_policy(visit: Visit, namespace: str, second: bool, problem: Any = None) -> Response:
    return visit.page(
        "policy.html",
        status=200 if problem is None else problem["status"],
        title="Who must approve",
        namespace=namespace,
        second=second,
        problem=problem,
        reason=visit.form.get("reason"),
    )


async def set_policy(visit: Visit) -> Response:
    namespace, second = visit.form.get("namespace"), visit.form.get("second") == "1"
    try:
        origin = visit.origin(visit.form.reason(), "policy", namespace, second)
        visit.service.check_change(origin)
        await visit.service.policies.set(namespace, second, origin)
    except ErrataError as error:
        return _ask_policy(visit, namespace, second, problem_of(error))
    return visit.to(f"{HERE}/namespaces", changed=1)


# -- keys


async def keys(visit: Visit) -> Response:
    return _keys(visit)


def _keys(visit: Visit, problem: Any = None, new_key: tuple[str, str] | None = None) -> Response:
    return visit.page(
        "keys.html",
        status=200 if problem is None else problem["status"],
        title="Keys",
        keys=list(visit.service.records.ledger.keys.values()),
        roles=list(Role),
        problem=problem,
        made=new_key,
        name=visit.form.get("name"),
        most_name_chars=MAX_NAME_CHARS,
        typed=visit.form.get("namespaces"),
        namespaces=visit.desk.known_namespaces(visit),
    )


async def create_key(visit: Visit) -> Response:
    """Create a key. It is shown in this answer only; a form that is sent twice creates no second key."""
    role, name = visit.form.get("role"), visit.form.get("name")
    spaces = visit.form.names("namespaces")
    origin = _key_origin(visit, "create", role, name, spaces)
    try:
        if role not in set(Role):
            raise InvalidRequest("There is no such role: choose one from the list.")
        if not visit.desk.door.requires_keys and (role != Role.ADMIN or spaces):
            raise InvalidRequest(
                "The first key must be of the role admin and for all namespaces: from then on every visitor is asked "
                "for a key, and only such an admin can make others."
            )
        if visit.service.records.done_under(origin) is not None:
            raise InvalidRequest("This form was sent before, and its key was made and shown then: look at the list.")
        key, text = await Keyring(visit.service.records, time.time).create(Role(role), name, origin, spaces)
    except ErrataError as error:
        return _keys(visit, problem_of(error))
    return _keys(visit, new_key=(key.name, text))


async def revoke_key(visit: Visit) -> Response:
    origin = _key_origin(visit, "revoke", visit.form.get("id"))
    try:
        if visit.service.records.done_under(origin) is None:
            await Keyring(visit.service.records, time.time).revoke(visit.form.get("id"), origin)
    except ErrataError as error:
        return _keys(visit, problem_of(error))
    return visit.to(f"{HERE}/keys")


def _key_origin(visit: Visit, *arguments: object) -> Origin:
    return visit.origin(visit.form.reason(), "key", *arguments)
