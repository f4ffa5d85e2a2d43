"""Conversion between a ledger and the plain records that a snapshot holds; how records are stored is not known here.

Derived parts are left out and rebuilt. Every new field of the ledger belongs here too, or a server that starts from a
snapshot would differ from one that folded the whole log: `tests/domain/test_snapshot.py` compares them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from app.domain.approval import Proposal, ProposalState
from app.domain.edit import SINCE, Edit, EditRequest
from app.domain.entry import Entry, KeyedOutcome, Touch
from app.domain.events import ProposalItem, Refit
from app.domain.keys import Key, Role
from app.domain.ledger import Ledger
from app.domain.webhooks import Webhook

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of the records that a ledger is taken apart into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Revisions [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRecord(Record):
    """One edit; records of edits keep the order of the log."""

    edit: Edit
    staged_in: str | None
    committed_at: int | None
    rolled_back: bool
    disabled: bool
    expired: bool
    superseded_by: tuple[str, ...]
    covers: bool
    live: tuple[Span, ...]
    history: tuple[Touch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitRecord(Record):
    """One refit; follows the edit's own record, oldest first."""

    revision: int
    fit: Refit


@dataclass(frozen=True, slots=True, kw_only=True)
class RetuneRecord(Record):
    """One retuning; follows the edit's own record, oldest first."""

    revision: int
    edit_id: str
    request: EditRequest
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesRecord(Record):
    namespace: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchRecord(Record):
    namespace: str | None
    off: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord(Record):
    """The newest revision that changed what a namespace's requests see; the empty name means all namespaces."""

    namespace: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UseRecord(Record):
    """The outcome recorded under an idempotency key, by API key."""

    key_id: str | None
    idempotency_key: str
    digest: str
    revision: int
    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord(Record):
    id: str
    name: str
    role: str
    secret_sha256: str
    created_at_s: float
    revoked_at_s: float | None
    namespaces: tuple[str, ...] = field(default=(), metadata={SINCE: 6})


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRecord(Record):
    namespace: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord(Record):
    id: str
    url: str
    kinds: tuple[str, ...]
    namespaces: tuple[str, ...]
    created_at_s: float
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord(Record):
    namespace: str
    second_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRecord(Record):
    """One proposal; records of proposals keep the order of the log."""

    id: str
    edits: tuple[ProposalItem, ...]
    batch: bool
    expires_at_s: float
    state: str
    edit_ids: tuple[str, ...]
    superseded_by: str | None
    history: tuple[Touch, ...]


RECORDS: dict[str, type[Record]] = {
    "edit": EditRecord,
    "refit": RefitRecord,
    "retune": RetuneRecord,
    "probes": ProbesRecord,
    "switch": SwitchRecord,
    "change": ChangeRecord,
    "use": UseRecord,
    "key": KeyRecord,
    "policy": PolicyRecord,
    "proposal": ProposalRecord,
    "namespace": NamespaceRecord,
    "webhook": WebhookRecord,
}


def records_of(ledger: Ledger) -> Iterator[Record]:
    """Records of all that a ledger remembers, besides its revision."""
    for entry in ledger.entries.values():
        yield _copied(
            EditRecord,
            entry,
            superseded_by=tuple(entry.superseded_by),
            live=_spans(entry.live),
            history=tuple(entry.history),
        )
        for revision, fit in entry.refits:
            yield RefitRecord(revision=revision, fit=fit)
        for revision, request, report in entry.retunes:
            yield RetuneRecord(revision=revision, edit_id=entry.edit.id, request=request, report=report)
    for name, prompts in ledger.probes.items():
        yield ProbesRecord(namespace=name, prompts=prompts)
    for namespace, off in ledger.off.items():
        yield SwitchRecord(namespace=namespace, off=_spans(off))
    for name, changed in ledger.last_changes.items():
        yield ChangeRecord(namespace=name, revision=changed)
    for (key_id, idempotency_key), use in ledger.by_idempotency_key.items():
        yield _copied(UseRecord, use, key_id=key_id, idempotency_key=idempotency_key)
    for key in ledger.keys.values():
        yield _copied(KeyRecord, key, role=key.role.value)
    for namespace_name, second_person in ledger.approval.policies.items():
        yield PolicyRecord(namespace=namespace_name, second_person=second_person)
    for each in ledger.approval.proposals.values():
        yield _copied(ProposalRecord, each, state=each.state.value, history=tuple(each.history))
    for name, description in ledger.described.items():
        yield NamespaceRecord(namespace=name, description=description)
    for hook in ledger.webhooks.values():
        yield _copied(WebhookRecord, hook)


def ledger_of(revision: int, records: Iterable[Record]) -> Ledger:
    """Rebuilds the ledger from its records. Raises ValueError for records that no ledger yields."""
    ledger = Ledger()
    for record in records:
        match record:
            case EditRecord():
                if record.edit.id in ledger.entries:
                    raise ValueError(f"the edit {record.edit.id} is in it twice")
                ledger.entries[record.edit.id] = _entry(record, len(ledger.entries))
            case RefitRecord():
                if record.fit.edit_id not in ledger.entries:
                    raise ValueError(f"it holds a refit of {record.fit.edit_id} before the record of that edit")
                ledger.entries[record.fit.edit_id].refits.append((record.revision, record.fit))
            case RetuneRecord():
                if record.edit_id not in ledger.entries:
                    raise ValueError(f"it holds a retuning of {record.edit_id} before the record of that edit")
                retune = (record.revision, record.request, record.report)
                ledger.entries[record.edit_id].retunes.append(retune)
            case ProbesRecord():
                ledger.probes[record.namespace] = record.prompts
            case SwitchRecord():
                ledger.off[record.namespace] = _intervals(record.off)
            case ChangeRecord():
                ledger.last_changes[record.namespace] = record.revision
            case UseRecord():
                ledger.by_idempotency_key[record.key_id, record.idempotency_key] = KeyedOutcome(
                    record.digest, record.revision, record.edit_ids
                )
            case KeyRecord():
                ledger.keys[record.id] = _copied(Key, record, role=Role(record.role))
            case PolicyRecord():
                ledger.approval.policies[record.namespace] = record.second_person
            case ProposalRecord():
                state, history = ProposalState(record.state), list(record.history)
                ledger.approval.proposals[record.id] = _copied(Proposal, record, state=state, history=history)
            case NamespaceRecord():
                ledger.described[record.namespace] = record.description
            case WebhookRecord():
                ledger.webhooks[record.id] = _copied(Webhook, record)
            case _:
                raise ValueError(f"it holds a {type(record).__name__}")
    ledger.resume(revision)
    return ledger


def _entry(record: EditRecord, order: int) -> Entry:
    superseded_by, live, history = list(record.superseded_by), _intervals(record.live), list(record.history)
    return _copied(
        Entry, record, order=order, superseded_by=superseded_by, live=live, history=history, refits=[], retunes=[]
    )


def _copied(kind: type[T], source: Any, **changed: Any) -> T:
    """A dataclass of the kind with the fields of another, but for those that are given."""
    names = [each.name for each in fields(kind) if each.name not in changed]  # type: ignore[arg-type]
    return kind(**{name: getattr(source, name) for name in names}, **changed)


def _spans(intervals: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple(Span(start=start, end=end) for start, end in intervals)


def _intervals(spans: Iterable[Span]) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in spans]
