"""Request and response bodies for webhooks. Independent of the service. A webhook's secret leaves the server only in
the answer that sets it up."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.api.schemas.base import Incoming, Namespace, Outgoing, Reason
from app.domain.webhooks import USUAL, Kind
from app.service.webhook_addresses import MAX_URL_CHARS


class WebhookBody(Incoming):
    """An address to notify of changes."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARS)] = Field(
        description="An http or https URL. `ERRATA_WEBHOOK_HOSTS` must allow any address that is not public."
    )
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=20)] = Field(
        default=list(USUAL), description="The kinds of changes of which it is notified."
    )
    namespaces: Annotated[list[Namespace], Field(max_length=100)] = Field(
        default=[], description="The namespaces of whose changes it is notified; empty: all."
    )
    reason: Reason | None = None


class WebhookOut(Outgoing):
    """A webhook without its secret."""

    id: str
    url: str
    kinds: list[str]
    namespaces: list[str] = Field(description="The namespaces of whose changes it is notified; empty: all.")
    created_at: datetime


class MadeWebhook(WebhookOut):
    secret: str = Field(description="The secret that signs its messages. It is shown only this once.")


class WebhooksOut(Outgoing):
    webhooks: list[WebhookOut]
    revision: int


class DeliveryOut(Outgoing):
    """A message that was sent to a webhook, or that the server tried to send."""

    id: str = Field(description="The same each time that it is sent: `X-Errata-Delivery`.")
    kind: str
    at: datetime = Field(description="The time of the last attempt.")
    attempts: int
    outcome: str = Field(description="delivered, waiting (it is tried again) or given_up.")
    status: int | None = Field(description="The status of the last answer, if one came.")
    problem: str | None


class DeliveriesOut(Outgoing):
    """The last deliveries, newest first."""

    deliveries: list[DeliveryOut]
    told_to: int = Field(description="The revision up to which the webhook has been notified.")
    revision: int
