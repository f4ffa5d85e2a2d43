"""Routes that set up, list, test and remove webhooks. They require an admin key for all namespaces."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path

from app.api.deps import Asker, because
from app.api.openapi import raises
from app.api.routes.changes import Why
from app.api.schemas.webhooks import DeliveriesOut, DeliveryOut, MadeWebhook, WebhookBody, WebhookOut, WebhooksOut
from app.domain.errors import LostRace, RequestCancelled, StateConflict, StoreUnavailable, UnknownWebhook

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["wh_0123456789ab"])]
EXAMPLES = {
    "a channel": {
        "value": {
            "url": "https://hooks.example.com/errata",
            "kinds": ["publish", "rollback", "switch"],
            "namespaces": ["production"],
            "reason": "The support team's channel",
        }
    }
}
CHANGES = raises(UnknownWebhook, StateConflict, StoreUnavailable, LostRace, RequestCancelled, body=True)


def routes(service: "Service") -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/webhooks", responses=raises(), summary="The webhooks")
    async def list_webhooks() -> WebhooksOut:
        webhooks = list(map(WebhookOut.like, service.records.ledger.webhooks.values()))
        return WebhooksOut(webhooks=webhooks, revision=service.revision)

    @router.post("/webhooks", status_code=201, responses=CHANGES, summary="Set up a webhook")
    async def create_webhook(
        asker: Asker, body: Annotated[WebhookBody, Body(openapi_examples=EXAMPLES)]
    ) -> MadeWebhook:
        """Each change of these kinds is posted to the address once it is in the log, signed with the secret, which only
        this answer shows. Edits that are refused change nothing and cause no message. The guide describes the message,
        its signature and the addresses that are refused."""
        origin = because(asker, body.reason, "webhook", body)
        service.check_change(origin)
        hook, secret = await service.webhooks.create(body.url, body.kinds, body.namespaces, origin)
        return MadeWebhook.like(hook, secret=secret)

    @router.post("/webhooks/{hook_id}/remove", responses=CHANGES, summary="Remove a webhook")
    async def remove_webhook(hook_id: Id, asker: Asker, body: Why = None) -> WebhooksOut:
        """Nothing more is sent to the webhook, and its secret is deleted. The answer lists the webhooks that remain."""
        origin = because(asker, None if body is None else body.reason, "webhook-removed", hook_id)
        service.check_change(origin)
        await service.webhooks.remove(hook_id, origin)
        return await list_webhooks()

    @router.post(
        "/webhooks/{hook_id}/test", responses=raises(UnknownWebhook, RequestCancelled), summary="Try a webhook"
    )
    async def test_webhook(hook_id: Id, asker: Asker) -> DeliveryOut:
        """Sends one message of the kind `test` immediately and returns its outcome."""
        return DeliveryOut.like(await service.webhooks.test(hook_id, asker.actor))

    @router.get(
        "/webhooks/{hook_id}/deliveries",
        responses=raises(UnknownWebhook, StoreUnavailable),
        summary="The last messages to a webhook",
    )
    async def webhook_deliveries(hook_id: Id) -> DeliveriesOut:
        """The last 50 messages, with the number of attempts and the outcome of each."""
        notified_to, deliveries = await service.webhooks.deliveries(hook_id)
        return DeliveriesOut(
            deliveries=list(map(DeliveryOut.like, deliveries)), told_to=notified_to, revision=service.revision
        )

    return router
