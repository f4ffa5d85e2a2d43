"""Webhooks, for admins: set up, tested, removed, and shown with their last deliveries."""

from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.errors import ErrataError
from app.domain.keys import Right
from app.domain.webhooks import KINDS, USUAL
from app.ui.desk import HERE, Desk
from app.ui.visit import Visit


def routes(desk: Desk) -> list[Route]:
    admin = partial(desk.route, right=Right.ADMIN)
    return [
        admin("/webhooks", get=listing, post=create),
        admin("/webhooks/test", post=test),
        admin("/webhooks/remove", post=remove),
        admin("/webhooks/{id}", get=show),
    ]


async def listing(visit: Visit) -> Response:
    return _listing(visit)


def _listing(visit: Visit, problem: Any = None, new_webhook: tuple[str, str] | None = None) -> Response:
    form = visit.form
    return visit.page(
        "webhooks.html",
        status=200 if problem is None else problem["status"],
        title="Webhooks",
        hooks=list(visit.service.records.ledger.webhooks.values()),
        kinds=list(KINDS),
        chosen=form.all("kind") if problem is not None else USUAL,
        typed={name: form.get(name) if problem is not None else "" for name in ("url", "namespaces", "reason")},
        namespaces=visit.desk.known_namespaces(visit),
        problem=problem,
        made=new_webhook,
    )


async def create(visit: Visit) -> Response:
    """Set up a webhook. The secret is shown in this answer only; a form that is sent twice sets up no second
    webhook."""
    form = visit.form
    url, kinds = form.get("url"), form.all("kind")
    spaces = form.names("namespaces")
    try:
        origin = visit.origin(form.reason(), "webhook", url, kinds, spaces)
        visit.service.check_change(origin)
        hook, secret = await visit.service.webhooks.create(url, kinds, spaces, origin)
    except ErrataError as error:
        return _listing(visit, problem_of(error))
    return _listing(visit, new_webhook=(hook.url, secret))


async def show(visit: Visit) -> Response:
    hook = visit.service.records.ledger.check_webhook(visit.request.path_params["id"])
    notified_to, deliveries = await visit.service.webhooks.deliveries(hook.id)
    return visit.page(
        "webhook.html",
        title="Webhook",
        hook=hook,
        notified_to=notified_to,
        deliveries=deliveries,
        tested=next((each for each in deliveries if each.id == visit.query.get("tested")), None),
    )


async def test(visit: Visit) -> Response:
    hook_id = visit.form.get("id")
    delivery = await visit.service.webhooks.test(hook_id, visit.origin(None).actor)
    return visit.to(f"{HERE}/webhooks/{hook_id}", tested=delivery.id)


async def remove(visit: Visit) -> Response:
    hook_id = visit.form.get("id")
    origin = visit.origin(visit.form.reason(), "webhook-removed", hook_id)
    try:
        visit.service.check_change(origin)
        await visit.service.webhooks.remove(hook_id, origin)
    except ErrataError as error:
        return _listing(visit, problem_of(error))
    return visit.to(f"{HERE}/webhooks")
