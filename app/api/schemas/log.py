"""Request and response bodies about the log: pages and exports of it, and its adoption. Independent of the service."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.base import MAX_REVISION, Incoming, Outgoing, Reason, Revision, utc
from app.api.schemas.edits import origin_fields
from app.domain.edit import Edit
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditProposed,
    EditRetuned,
    EditStaged,
    Event,
    KeyCreated,
    KeyRevoked,
    LivenessChange,
    NamespaceSet,
    PolicySet,
    ProbesSet,
    ProposalEvent,
    ProposalItem,
    ProposalRevised,
    SwitchSet,
    WebhookRemoved,
    WebhookSet,
)
from app.domain.ledger import Ledger
from app.domain.webhooks import server_of
from app.engine.controls import plain, shown
from app.service.edit_history import actor_of, changed_by
from app.service.event_pages import EventQuery


class ExportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int | None = Field(
        default=None,
        ge=0,
        le=MAX_REVISION,
        description="Show events above this revision; if left out, from the oldest that is kept on.",
    )


class LogQuery(ExportQuery):
    limit: int = Field(default=100, ge=1, le=500)
    order: Literal["oldest", "newest"] = Field(default="oldest", description="The events that come first.")
    before: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REVISION,
        description="Show events below this revision, newest first; if left out, from the newest back.",
    )
    actor: str | None = Field(
        default=None, max_length=200, description="Only changes of this actor, or of this key id."
    )
    edit: str | None = Field(default=None, max_length=64, description="Only changes of the edit with this id.")
    since: datetime | None = Field(default=None, description="Only changes from this time on.")

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if self.before is not None and self.order != "newest":
            raise ValueError("`before` goes with `order=newest`, `after` with `order=oldest`")
        if self.after is not None and self.order != "oldest":
            raise ValueError("`after` goes with `order=oldest`, `before` with `order=newest`")
        return self

    def to_domain(self) -> EventQuery:
        return EventQuery(
            newest_first=self.order == "newest",
            after=self.after,
            before=self.before,
            limit=self.limit,
            actor=self.actor,
            edit_id=self.edit,
            since_s=None if self.since is None else _unix(self.since),
        )


def _unix(at: datetime) -> float:
    """Unix time in seconds. A time without a zone is UTC, as all times in answers are."""
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


class AdoptBody(Incoming):
    """The log to adopt."""

    revision: Revision = Field(description="The revision at which it ends, as `why_not` shows it: 0 of an empty one.")
    reason: Reason | None = None


class Adopted(Outgoing):
    """The log that is applied now."""

    revision: int
    hash: str


class LoggedEdit(Outgoing):
    """The edit that an event commits, without its tensors; GET /edits/{id} has the rest."""

    id: str
    editor: str
    namespace: str
    prompt: str
    target: str
    before: str = Field(description="The answer to the prompt before the edit.")
    after: str = Field(description="The answer to the prompt in the trial before the commit.")
    forced: bool = Field(description="True if it was committed regardless of its verification.")
    reason: str | None
    supersedes: list[str]
    promoted_from: str | None = Field(description="The edit, in another namespace, that it was made of.")

    @classmethod
    def of(cls, edit: Edit, reason: str | None) -> "LoggedEdit":
        request = edit.request
        return cls.like(
            edit, request, prompt=plain(request.prompt), forced=request.force, reason=request.reason or reason
        )


class ProposedText(Outgoing):
    """An edit that is proposed; GET /proposals/{id} has the rest."""

    namespace: str
    prompt: str
    target: str
    reason: str | None

    @classmethod
    def of(cls, proposed: ProposalItem) -> "ProposedText":
        request = proposed.request
        return cls.like(request, prompt=plain(request.prompt))


class EventOut(Outgoing):
    """One event of the log. The fields from `edit` on are set if the kind of event has them."""

    revision: int
    hash: str = Field(description="Hash of the log's entry; it covers this event and all before it.")
    kind: str
    at: datetime
    actor: str
    key_id: str | None
    role: str | None
    reason: str | None
    request_id: str | None
    client: str | None
    proposal: str | None = Field(default=None, description="The proposal that it is about, or that it publishes.")
    proposed_by: str | None = Field(
        default=None, description="The person who proposed a publication that the actor approved."
    )
    edit: LoggedEdit | None = None
    edits: list[LoggedEdit] | None = Field(default=None, description="The edits of a batch, each with its reason.")
    edit_ids: list[str] | None = None
    superseded: list[str] | None = Field(
        default=None, description="Edits that answer no more because of what it brought in."
    )
    revived: list[str] | None = Field(default=None, description="Edits that answer again because of what it took out.")
    changed: dict[str, Any] | None = Field(
        default=None, description="The changes that a retune asked for, with texts as they were added."
    )
    forced: bool | None = None
    batch_id: str | None = None
    namespace: str | None = None
    on: bool | None = None
    prompts: list[str] | None = None
    second_person: bool | None = Field(default=None, description="True if edits of the namespace need one.")
    proposed: list[ProposedText] | None = Field(default=None, description="The edits that a proposal asks for.")
    key: str | None = None
    key_name: str | None = None
    key_role: str | None = None
    key_namespaces: list[str] | None = Field(default=None, description="The namespaces that the key opens; empty: all.")
    description: str | None = Field(default=None, description="The purpose of a namespace.")
    webhook: str | None = None
    url: str | None = Field(default=None, description="The server that a webhook notifies.")
    kinds: list[str] | None = Field(default=None, description="The kinds of changes of which a webhook notifies.")
    namespaces: list[str] | None = Field(
        default=None, description="The namespaces of whose changes a webhook notifies; empty: all."
    )

    @classmethod
    def of(cls, event: Event, entry_hash: str, ledger: Ledger, effects: tuple[list[str], list[str]]) -> "EventOut":
        """An event for the answer. `effects` are the edits that it revived and superseded, for an event from before
        events recorded them."""
        origin = replace(event.origin, actor=actor_of(event.origin, ledger.keys))
        fields: dict[str, Any] = {
            "revision": event.revision,
            "hash": entry_hash,
            "kind": event.kind,
            "at": utc(event.at_s),
            **origin_fields(origin),
        }
        if isinstance(event, EditCommitted | EditStaged):
            fields["edit"] = LoggedEdit.of(event.edit, event.origin.reason)
        elif isinstance(event, KeyCreated | KeyRevoked):
            key = ledger.keys.get(event.key_id)  # for a revocation from before revocations recorded the key
            name, role = (event.name, event.role) if key is None else (key.name, key.role.value)
            fields |= {"key": event.key_id, "key_name": name or None, "key_role": role or None}
            fields["key_namespaces"] = [] if key is None else list(key.namespaces)
        elif isinstance(event, NamespaceSet):
            fields |= {"namespace": event.namespace, "description": event.description}
        elif isinstance(event, WebhookSet):
            fields |= {"kinds": list(event.kinds), "namespaces": list(event.namespaces)}
            fields |= {"webhook": event.hook_id, "url": server_of(event.url)}
        elif isinstance(event, WebhookRemoved):
            fields |= {"webhook": event.hook_id, "url": server_of(event.url)}
        elif isinstance(event, ProbesSet):
            fields |= {"namespace": event.namespace, "prompts": shown(event.prompts)}
        elif isinstance(event, SwitchSet):
            fields |= {"namespace": event.namespace, "on": event.on}
        elif isinstance(event, PolicySet):
            fields |= {"namespace": event.namespace, "second_person": event.second_person}
        elif isinstance(event, ProposalEvent):
            fields["proposal"] = event.proposal_id
        else:
            fields["edit_ids"] = list(getattr(event, "edit_ids", ()))
        if isinstance(event, EditProposed | ProposalRevised):
            fields["proposed"] = [ProposedText.of(each) for each in event.edits]
        if isinstance(event, EditStaged | BatchCommitted):
            fields["batch_id"] = event.batch_id
        if isinstance(event, BatchCommitted):
            staged = [ledger.entries[edit_id] for edit_id in event.edit_ids if edit_id in ledger.entries]
            fields["edits"] = [LoggedEdit.of(entry.edit, entry.history[0].origin.reason) for entry in staged]
        if isinstance(event, LivenessChange):
            fields |= {"revived": [*event.revived, *effects[0]], "superseded": [*event.superseded, *effects[1]]}
        if isinstance(event, EditRetuned):
            entry = ledger.entries.get(event.fit.edit_id)
            changed = event.changed or (changed_by(entry, event.revision) if entry is not None else {})
            fields |= {"changed": shown(changed), "forced": event.forced}
        return cls(**fields)


class LogPage(Outgoing):
    """Events in the requested order."""

    events: list[EventOut]
    next_after: int | None = Field(description="The `after` of the next page; null at the head.")
    next_before: int | None = Field(description="The `before` of the next page; null at the oldest event.")
    read_to: int = Field(description="The last revision that was looked at: filters may have left it out.")
