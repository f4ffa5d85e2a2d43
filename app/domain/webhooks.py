"""Webhooks: the addresses that are notified of changes. A webhook's secret is never kept here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditRetuned,
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRolledBack,
    SwitchSet,
)

Kind = Literal["publish", "retune", "rollback", "disable", "enable", "expire", "switch"]
KINDS: Mapping[Kind, frozenset[str]] = {
    "publish": frozenset({EditCommitted.kind, BatchCommitted.kind}),
    "retune": frozenset({EditRetuned.kind}),
    "rollback": frozenset({EditsRolledBack.kind}),
    "disable": frozenset({EditsDisabled.kind}),
    "enable": frozenset({EditsEnabled.kind}),
    "expire": frozenset({EditsExpired.kind}),
    "switch": frozenset({SwitchSet.kind}),
}
"""The events of each kind of notification."""
USUAL: tuple[Kind, ...] = ("publish", "rollback", "switch")
"""The kinds of changes of which a webhook is notified if none is named."""
TEST = "test"
"""The kind of a message that only tests whether messages arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """`kinds` are names of KINDS; `namespaces` are those of whose changes it is notified, empty: all."""

    id: str
    url: str
    kinds: tuple[str, ...]
    namespaces: tuple[str, ...]
    created_at_s: float
    since: int
    """The revision that set it up; the webhook is notified of changes after it."""


def kind_of(event_kind: str) -> Kind | None:
    """The kind of change that an event is for webhooks, or None if they are not notified of it."""
    return next((name for name, events in KINDS.items() if event_kind in events), None)


def server_of(url: str) -> str:
    """The part of a webhook's address that people may see who do not set up webhooks: paths and queries may hold the
    receiver's secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
