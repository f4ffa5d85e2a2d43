"""The events. Each raises the revision by one, and nothing else changes what an edit does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from app.domain.edit import SINCE, Edit, EditRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposer:
    """The proposer of what somebody else approved, named in the event that publishes it."""

    proposal_id: str
    revision: int
    """The revision of the event that gave the proposal its approved form."""
    actor: str
    key_id: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of an event: the person, the reason and the client. These are the audit fields of every event."""

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
    proposer: Proposer | None = field(default=None, metadata={SINCE: 5})
    """The first of the two persons behind an event that publishes a proposal. The actor is the second, who approved
    it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `revision` is the revision that the event creates; `at_s` is Unix time."""

    kind: ClassVar[str]
    revision: int
    at_s: float
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessChange(Event):
    """An event that opens or closes the live intervals of the edits that it names and, through them, of others.

    The others are recorded in it, so that an entry can be read on its own. Entries older than schema 4 lack them; there
    they follow from the fold.
    """

    revived: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that go live again because the event takes out the edits that superseded them."""
    superseded: tuple[str, ...] = field(default=(), metadata={SINCE: 4})
    """Edits that stop being live because what the event brings in supersedes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCommitted(LivenessChange):
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
class BatchCommitted(LivenessChange):
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
    """True if the change was made with `force`, whatever its verification said."""

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
class EditsRolledBack(LivenessChange):
    kind: ClassVar[str] = "edits_rolled_back"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsDisabled(LivenessChange):
    kind: ClassVar[str] = "edits_disabled"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsEnabled(LivenessChange):
    kind: ClassVar[str] = "edits_enabled"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditsExpired(LivenessChange):
    kind: ClassVar[str] = "edits_expired"
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchSet(Event):
    """The edit switch of a namespace, or (None) of all: while it is off, no edit answers there."""

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
    namespaces: tuple[str, ...] = field(default=(), metadata={SINCE: 6})
    """The namespaces that the key opens; an empty set means all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(Event):
    kind: ClassVar[str] = "key_revoked"
    key_id: str
    name: str = field(default="", metadata={SINCE: 4})
    role: str = field(default="", metadata={SINCE: 4})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet(Event):
    """The policy of a namespace: if `second_person` is true, each of its edits needs a second person, who approves
    it."""

    kind: ClassVar[str] = "policy_set"
    namespace: str
    second_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalItem:
    """One edit of a proposal: what is asked for, and what its preview found. Nothing that was fitted is kept."""

    request: EditRequest
    editor: str
    before: str
    after: str
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalEvent(Event):
    """An event about one proposal. None of them changes what any edit does."""

    proposal_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EditProposed(ProposalEvent):
    """An edit, or a batch, waits for a second person, until `expires_at_s` (Unix time)."""

    kind: ClassVar[str] = "edit_proposed"
    edits: tuple[ProposalItem, ...]
    batch: bool
    expires_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRevised(ProposalEvent):
    """Its proposer has changed it: it waits anew."""

    kind: ClassVar[str] = "proposal_revised"
    edits: tuple[ProposalItem, ...]
    batch: bool
    expires_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalReturned(ProposalEvent):
    """A second person has sent it back; the origin's reason says why."""

    kind: ClassVar[str] = "proposal_returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalWithdrawn(ProposalEvent):
    kind: ClassVar[str] = "proposal_withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(ProposalEvent):
    kind: ClassVar[str] = "proposal_expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSet(Event):
    """A namespace is there, and what it is for, in place of what was said of it before."""

    kind: ClassVar[str] = "namespace_set"
    namespace: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSet(Event):
    """An address is notified of changes of these kinds, in these namespaces (empty: all), from now on."""

    kind: ClassVar[str] = "webhook_set"
    hook_id: str
    url: str
    kinds: tuple[str, ...]
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRemoved(Event):
    kind: ClassVar[str] = "webhook_removed"
    hook_id: str
    url: str


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
        PolicySet,
        EditProposed,
        ProposalRevised,
        ProposalReturned,
        ProposalWithdrawn,
        ProposalExpired,
        NamespaceSet,
        WebhookSet,
        WebhookRemoved,
    )
}


def named(event: LivenessChange) -> tuple[str, ...]:
    """The edits that an event names, as opposed to those that it turns through them."""
    if isinstance(event, EditCommitted):
        return (event.edit.id,)
    assert isinstance(event, BatchCommitted | EditsRolledBack | EditsDisabled | EditsEnabled | EditsExpired)
    return event.edit_ids
