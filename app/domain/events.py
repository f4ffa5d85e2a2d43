"""The events: each raises the revision by one, and is all that can change what an edit does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from app.domain.edit import Edit, EditRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who caused an event, why, and from where: the audit's half of every event."""

    actor: str = "anonymous"
    key_id: str | None = None
    role: str | None = None
    """Of the key that the request came with, where keys are asked for."""
    reason: str | None = None
    request_id: str | None = None
    client: str | None = None
    idempotency_key: str | None = None
    digest: str | None = None
    """Hash of the request under `idempotency_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`revision` is the one this event creates; `at_s` is Unix time."""

    kind: ClassVar[str]
    revision: int
    at_s: float
    origin: Origin


SINCE = "since"
"""In a field's metadata: the schema of the log that it came with. Entries that are older do not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning(Event):
    """An event that makes edits live, or no longer so: those that it names, and others through them.

    The others are told in it, so that whoever reads an entry alone knows. Of an entry from before schema 4 they are
    known by folding.
    """

    revived: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that were superseded by what it takes out, and answer again."""
    superseded: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that are superseded by what it brings in, and answer no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCommitted(Turning):
    """One edit goes live, and what it supersedes goes out, in one step."""

    kind: ClassVar[str] = "edit_committed"
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class EditStaged(Event):
    """One edit of a batch is in the log but not live: it waits for its batch's closing event."""

    kind: ClassVar[str] = "edit_staged"
    batch_id: str
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommitted(Turning):
    """The closing event of a batch: all its staged edits go live at this revision, or, without it, none ever."""

    kind: ClassVar[str] = "batch_committed"
    batch_id: str
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """What an edit has learned anew, in place of what it was committed with."""

    edit_id: str
    learned: Mapping[str, Any]
    tensors: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsRefitted(Event):
    """Edits that shared weights with one that was rolled back were fitted again without it, and act so from here on."""

    kind: ClassVar[str] = "edits_refitted"
    fits: tuple[Refit, ...]

    @property
    def edit_ids(self) -> tuple[str, ...]:
        return tuple(fit.edit_id for fit in self.fits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRetuned(Event):
    """An edit's scope was changed: what was asked of it in all, and what it acts by from here on."""

    kind: ClassVar[str] = "edit_retuned"
    fit: Refit
    request: EditRequest
    report: Mapping[str, Any]
    changed: Mapping[str, Any] = field(default_factory=dict, metadata={SINCE: 4})
    """What was asked for: `widen`, and the texts that were added, by kind."""
    forced: bool = field(default=False, metadata={SINCE: 4})
    """Whether it was changed although its verification failed, or whatever that would have said."""

    @property
    def edit_ids(self) -> tuple[str, ...]:
        return (self.fit.edit_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesSet(Event):
    """Prompts of a namespace whose answers no edit may change, in place of those it had."""

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
    """The kill switch: while `on` is false no edit of the namespace (or, for None, of any) answers."""

    kind: ClassVar[str] = "switch_set"
    namespace: str | None
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(Event):
    """A key may be used from now on. Its secret is known to its owner only."""

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
    """The edits that it names, in distinction to those that turn through them."""
    if isinstance(event, EditCommitted):
        return (event.edit.id,)
    assert isinstance(event, BatchCommitted | EditsRolledBack | EditsDisabled | EditsEnabled | EditsExpired)
    return event.edit_ids
