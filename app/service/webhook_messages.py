"""The message that a webhook receives about an event, and its signature. Pure functions that do not import torch."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.edit import edit_id_of
from app.domain.entry import Entry
from app.domain.events import BatchCommitted, EditCommitted, Event, SwitchSet
from app.domain.ledger import Ledger
from app.domain.webhooks import TEST, Webhook, kind_of
from app.engine.controls import plain
from app.service.edit_history import actor_of

SIGNATURE, EVENT, DELIVERY = "X-Errata-Signature", "X-Errata-Event", "X-Errata-Delivery"
MOST_EDITS = 200
"""The most edits that a message about one event lists; `edit_count` gives the number of all."""


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """A message to a webhook. `id` is the same on every attempt, so that a receiver recognises a repetition."""

    id: str
    kind: str
    body: bytes


def message_of(hook: Webhook, event: Event, ledger: Ledger) -> WebhookMessage | None:
    """The message about an event for this webhook, limited to edits of its namespaces; None if it is not to be
    notified."""
    kind = kind_of(event.kind)
    if kind is None or kind not in hook.kinds:
        return None
    facts: dict[str, Any] = {}
    if isinstance(event, SwitchSet):
        if event.namespace is not None and not _wanted(hook, event.namespace):
            return None
        facts = {"namespace": event.namespace, "on": event.on}
    else:
        entries = [ledger.entries[each] for each in _edits(event) if each in ledger.entries]
        entries = [entry for entry in entries if _wanted(hook, entry.edit.request.namespace)]
        if not entries:
            return None
        facts = {"edits": [_edit_facts(entry) for entry in entries[:MOST_EDITS]], "edit_count": len(entries)}
    return _message(
        hook,
        kind,
        str(event.revision),
        {
            "revision": event.revision,
            "at": datetime.fromtimestamp(event.at_s, UTC).isoformat(),
            "actor": actor_of(event.origin, ledger.keys),
            "reason": event.origin.reason,
            **facts,
        },
    )


def test_message(hook: Webhook, mark: str, actor: str) -> WebhookMessage:
    """A message that only tests the webhook. `mark` distinguishes one test from another."""
    return _message(hook, TEST, f"{TEST}-{mark}", {"actor": actor, "reason": "To see whether it arrives."})


def _message(hook: Webhook, kind: str, mark: str, facts: dict[str, Any]) -> WebhookMessage:
    message_id = f"{hook.id}-{mark}"
    body = {"delivery": message_id, "webhook": hook.id, "event": kind, **facts}
    return WebhookMessage(message_id, kind, json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def _wanted(hook: Webhook, namespace: str) -> bool:
    return not hook.namespaces or namespace in hook.namespaces


def _edits(event: Event) -> tuple[str, ...]:
    if isinstance(event, EditCommitted):
        return (event.edit.id,)
    ids = event.edit_ids if isinstance(event, BatchCommitted) else getattr(event, "edit_ids", ())
    return tuple(map(edit_id_of, ids))


def _edit_facts(entry: Entry) -> dict[str, Any]:
    edit, request = entry.edit, entry.request
    return {
        "id": edit.id,
        "namespace": request.namespace,
        "prompt": plain(request.prompt),
        "target": request.target,
        "before": edit.before,
        "promoted_from": request.promoted_from,
    }


def headers_of(message: WebhookMessage, secret: str, at_s: float) -> dict[str, str]:
    """The HTTP headers of a message. The signature covers the time of sending, so that a recorded message cannot be
    sent again later."""
    return {
        "Content-Type": "application/json",
        EVENT: message.kind,
        DELIVERY: message.id,
        SIGNATURE: f"t={int(at_s)},v1={signature(secret, int(at_s), message.body)}",
    }


def signature(secret: str, at_s: int, body: bytes) -> str:
    """The HMAC-SHA256, in hex, of the Unix time, a full stop, and the body."""
    return hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
