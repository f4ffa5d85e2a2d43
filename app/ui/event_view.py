"""An event as people read it: the person, the change, its time and its reason."""

from collections.abc import Collection
from dataclasses import dataclass

from app.domain import events
from app.domain.edit import edit_id_of
from app.domain.keys import namespace_names
from app.domain.webhooks import server_of
from app.service.edit_history import namespaces_of
from app.ui import words
from app.ui.visit import Visit


@dataclass(frozen=True, slots=True)
class EventEdit:
    """An edit that an event is about."""

    id: str
    question: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class EventView:
    revision: int
    kind: str
    verb: str
    at_s: float
    origin: events.Origin
    items: tuple[EventEdit, ...]
    more: int
    """The number of edits beyond those that are shown."""
    detail: str
    """Further facts about the change, such as the name of a key."""
    namespace: str | None
    forced: bool
    superseded: int
    """The number of edits that it replaced."""
    promoted: str | None = None
    """The namespace that its edit was promoted from."""
    hash: str = ""
    proposal: str = ""
    """The proposal that it is about."""
    proposal_question: str = ""


MOST_ITEMS = 5
TAKEN_AWAY = (events.EditsRolledBack, events.EditsDisabled, events.EditsExpired)
"""The events after which an edit's question has its former answer."""


def event_view_of(visit: Visit, event: events.Event, entry_hash: str = "") -> EventView:
    edit = event.edit if isinstance(event, events.EditCommitted | events.EditStaged) else None
    ids = (edit.id,) if edit is not None else tuple(getattr(event, "edit_ids", ()))
    request = event.request if isinstance(event, events.EditRetuned) else edit.request if edit is not None else None
    verb, detail = words.event_word(event.kind), ""
    match event:
        case events.SwitchSet(on=on, namespace=namespace):
            verb = f"switched edits {'on' if on else 'off'}"
            detail = "in all namespaces" if namespace is None else f"in the namespace {namespace}"
        case events.ProbesSet(namespace=namespace, prompts=prompts):
            detail = f"{len(prompts)} of the namespace {namespace}"
        case events.KeyCreated(key_id=key_id, name=name, role=role):
            detail = f"{key_id} for {name}, role {role}"
            if event.namespaces:
                detail += f", for {namespace_names(event.namespaces)}"
        case events.KeyRevoked(key_id=key_id):
            detail = key_id
        case events.PolicySet(namespace=namespace, second_person=second_person):
            detail = f"of edits in the namespace {namespace}: {'a second person' if second_person else 'nobody else'}"
        case events.NamespaceSet(namespace=namespace, description=description):
            detail = f"{namespace}: {description}" if description else namespace
        case events.WebhookSet(url=url) | events.WebhookRemoved(url=url):
            detail = server_of(url)
        case events.BatchCommitted():
            detail = f"of {len(ids)} edits"
        case _:
            pass
    return EventView(
        revision=event.revision,
        kind=event.kind,
        verb=verb,
        at_s=event.at_s,
        origin=event.origin,
        items=tuple(
            item for each in ids[:MOST_ITEMS] if (item := _item(visit, each, isinstance(event, TAKEN_AWAY))) is not None
        ),
        more=max(0, len(ids) - MOST_ITEMS),
        detail=detail,
        namespace=_only(namespaces_of(event, visit.service.records.ledger)),
        forced=request is not None and request.force,
        superseded=len(edit.supersedes) if edit is not None else 0,
        hash=entry_hash,
        proposal=event.proposal_id if isinstance(event, events.ProposalEvent) else "",
        proposal_question=_proposal_question(visit, event),
        promoted=_source_of(visit, edit.request.promoted_from if edit is not None else None),
    )


def _only(namespaces: Collection[str | None]) -> str | None:
    """The namespace that an event is about; None if it is about all, none or several."""
    return next(iter(namespaces)) if len(namespaces) == 1 else None


def _proposal_question(visit: Visit, event: events.Event) -> str:
    """The present question of the event's proposal; empty without one."""
    proposal = visit.service.records.ledger.approval.proposals.get(getattr(event, "proposal_id", ""))
    return "" if proposal is None else visit.service.answers.question(proposal.edits[0].request.prompt)


def _source_of(visit: Visit, edit_id: str | None) -> str | None:
    entry = None if edit_id is None else visit.service.records.ledger.entries.get(edit_id)
    return None if entry is None else entry.edit.request.namespace


def _item(visit: Visit, fit_id: str, taken_away: bool) -> EventEdit | None:
    """The edit with the answer before the event and after it; None if it is unknown."""
    entry = visit.service.records.ledger.entries.get(edit_id_of(fit_id))
    if entry is None:
        return None
    question = visit.service.answers.question(entry.request.prompt)
    before, after = entry.edit.before, entry.request.target
    return EventEdit(entry.edit.id, question, *((after, before) if taken_away else (before, after)))
