"""The events. Each raises the revision by one, and nothing else changes what an edit does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from app.domain.edit import Edit, EditRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who caused an event, why, and from where: the audit fields of every event."""

    actor: str = "anonymous"
    key_id: str | None = None
    role: str | None = None
    """Role of the key that the request was authenticated with; None without a key."""
    reason: str | None = None
    request_id: str | None = None
    client: str | None = None
    idempotency_key: str | None = None
    digest: str | None = None
    """Digest of the request sent under `idempotency_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `revision` is the revision that the event creates; `at_s` is Unix time."""

    kind: ClassVar[str]
    revision: int
    at_s: float
    origin: Origin


SINCE = "since"
"""Key of a field's metadata: the log schema that introduced the field. Older entries do not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning(Event):
    """An event that opens or closes the live intervals of the edits that it names and, through them, of others.

    The others are recorded in it, so that an entry can be read on its own. Entries older than schema 4 lack them; there
    they follow from the fold.
    """

    revived: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that go live again because the event takes out what superseded them."""
    superseded: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that stop being live because what the event brings in supersedes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCommitted(Turning):
    """One edit goes live, and the edits that it supersedes stop being live, in one step."""

    kind: ClassVar[str] = "edit_committed"
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class EditStaged(Event):
    """One edit of a batch is in the log but not yet live: it waits for its batch's closing event."""

    kind: ClassVar[str] = "edit_staged"
    batch_id: str
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommitted(Turning):
    """The closing event of a batch: all its staged edits go live at this revision. Without it, none ever does."""

    kind: ClassVar[str] = "batch_committed"
    batch_id: str
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A new fit of an edit; it replaces the fit that the edit was committed with."""

    edit_id: str
    learned: Mapping[str, Any]
    tensors: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsRefitted(Event):
    """Edits that shared weights with a rolled-back edit were fitted again without it; the new fits apply from here
    on."""

    kind: ClassVar[str] = "edits_refitted"
    fits: tuple[Refit, ...]

    @property
    def edit_ids(self) -> tuple[str, ...]:
        return tuple(fit.edit_id for fit in self.fits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRetuned(Event):
    """An edit's scope was changed. The event holds the complete request and the fit that apply from here on."""

    kind: ClassVar[str] = "edit_retuned"
    fit: Refit
    request: EditRequest
    report: Mapping[str, Any]
    changed: Mapping[str, Any] = field(default_factory=dict, metadata={SINCE: 4})
    """The requested change: `widen`, and the added texts by kind."""
    forced: bool = field(default=False, metadata={SINCE: 4})
    """Whether the change was made with `force`, whatever its verification said."""

    @property
    def edit_ids(self) -> tuple[str, ...]:
        return (self.fit.edit_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesSet(Event):
    """Replaces the probes of a namespace: prompts whose answers no edit may change."""

    kind: ClassVar[str] = "probes_set"
    namespace: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsRolledBack(Turning):
    kind: ClassVar[str] = "edits_rolled_back"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsDisabled(Turning):
    kind: ClassVar[str] = "edits_disabled"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsEnabled(Turning):
    kind: ClassVar[str] = "edits_enabled"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsExpired(Turning):
    kind: ClassVar[str] = "edits_expired"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchSet(Event):
    """The kill switch: while `on` is false, no edit of the namespace answers; None stands for all namespaces."""

    kind: ClassVar[str] = "switch_set"
    namespace: str | None
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(Event):
    """A key is valid from here on. The event holds only the hash of its secret."""

    kind: ClassVar[str] = "key_created"
    key_id: str
    name: str
    role: str
    secret_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(Event):
    kind: ClassVar[str] = "key_revoked"
    key_id: str
    name: str = field(default="", metadata={SINCE: 4})
    role: str = field(default="", metadata={SINCE: 4})


EVENTS: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        EditCommitted,
        EditStaged,
        BatchCommitted,
        EditsRefitted,
        EditRetuned,
        ProbesSet,
        EditsRolledBack,
        EditsDisabled,
        EditsEnabled,
        EditsExpired,
        SwitchSet,
        KeyCreated,
        KeyRevoked,
    )
}


def named(event: Turning) -> tuple[str, ...]:
    """The edits that an event names, as opposed to those that it turns through them."""
    if isinstance(event, EditCommitted):
        return (event.edit.id,)
    assert isinstance(event, BatchCommitted | EditsRolledBack | EditsDisabled | EditsEnabled | EditsExpired)
    return event.edit_ids
