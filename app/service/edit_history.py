"""An edit's history for readers: its own events, and the effects of other edits' events on it. Does not import
torch."""

from collections.abc import Iterable, Iterator, Mapping

from app.domain import events
from app.domain.edit import EditRequest, edit_id_of
from app.domain.entry import NEVER, Entry, Touch
from app.domain.keys import Key, signed
from app.domain.ledger import Ledger
from app.service.views import HistoryItem

SUPERSEDED, REVIVED = "edit_superseded", "edit_revived"
"""Effects of another edit's event. No event has these kinds; they appear only in an edit's history."""
_MAKING = (events.EditCommitted.kind, events.BatchCommitted.kind)
_TEXTS = ("paraphrases", "counter_examples", "aliases", "probes")


def history_of(ledger: Ledger, entry: Entry) -> tuple[HistoryItem, ...]:
    """An edit's history, oldest first."""
    own = [_own_item(ledger, entry, item) for item in entry.history]
    known = {item.revision for item in own}
    items = [*own, *(item for item in _turned_by_others(ledger, entry) if item.revision not in known)]
    return tuple(sorted(items, key=lambda item: item.revision))


def actor_of(origin: events.Origin, keys: Mapping[str, Key]) -> str:
    """The author: the key, with the name that was claimed beside it. Older entries have the claimed name alone."""
    key = None if origin.key_id is None else keys.get(origin.key_id)
    return origin.actor if key is None else signed(key, origin.actor)


def is_by(origin: events.Origin, actor: str, keys: Mapping[str, Key]) -> bool:
    """True if the origin is this actor's, given as displayed, by the key's id or name, or by the claimed name."""
    if origin.proposer is not None and actor in (origin.proposer.actor, origin.proposer.key_id):
        return True
    shown_name = actor_of(origin, keys)
    key = keys.get(origin.key_id or "")
    return actor in (shown_name, origin.actor, key and key.id, key and key.name) or shown_name.endswith(
        f" (as {actor})"
    )


def changed_by(entry: Entry, revision: int) -> Mapping[str, object]:
    """The texts that a retune added, by kind."""
    requests = [(0, entry.edit.request), *((at, request) for at, request, _ in entry.retunes)]
    at = next((place for place, (changed, _) in enumerate(requests) if changed == revision), 0)
    return added(requests[at - 1][1], requests[at][1]) if at else {}


def added(before: EditRequest, after: EditRequest) -> dict[str, object]:
    texts = {name: [each for each in getattr(after, name) if each not in getattr(before, name)] for name in _TEXTS}
    return {name: new for name, new in texts.items() if new}


def effects(ledger: Ledger, changes: Iterable[events.Event]) -> dict[int, tuple[list[str], list[str]]]:
    """Maps a revision to the edits that its event revived and superseded indirectly, for events that do not record
    them."""
    turning = (e for e in changes if isinstance(e, events.LivenessChange) and not (e.revived or e.superseded))
    return {event.revision: turned_at(ledger, event.revision, events.named(event)) for event in turning}


def turned_at(ledger: Ledger, revision: int, edit_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """The edits that an event of this revision about these edits revived, and superseded, indirectly."""
    ids = [edit_id for edit_id in edit_ids if edit_id in ledger.entries]
    others = [ledger.entries[edit_id] for edit_id in ledger.with_superseded(ids) if edit_id not in ids]
    revived = [entry.edit.id for entry in others if any(start == revision for start, _ in entry.live)]
    superseded = [entry.edit.id for entry in others if any(end == revision for _, end in entry.live)]
    return revived, superseded


def namespaces_of(event: events.Event, ledger: Ledger) -> frozenset[str | None]:
    """The namespaces that an event is about; None among them means all, and an event that is about none, such as
    one of keys, has an empty set."""
    if isinstance(event, events.SwitchSet | events.ProbesSet | events.PolicySet | events.NamespaceSet):
        return frozenset({event.namespace})
    if isinstance(event, events.EditCommitted | events.EditStaged):
        return frozenset({event.edit.request.namespace})
    if isinstance(event, events.ProposalEvent):
        proposal = ledger.approval.proposals.get(event.proposal_id)
        return frozenset(() if proposal is None else proposal.namespaces)
    ids = map(edit_id_of, getattr(event, "edit_ids", ()))
    return frozenset(ledger.entries[i].edit.request.namespace for i in ids if i in ledger.entries)


def _own_item(ledger: Ledger, entry: Entry, touch: Touch) -> HistoryItem:
    revision, kind, at_s, origin = touch.revision, touch.kind, touch.at_s, touch.origin
    if kind in _MAKING and revision != entry.committed_at:
        by = [newer for newer in entry.superseded_by if ledger.entries[newer].committed_at == revision]
        return HistoryItem(revision=revision, kind=SUPERSEDED, at_s=at_s, origin=origin, by=by[0] if by else None)
    changed = changed_by(entry, revision) if kind == events.EditRetuned.kind else {}
    return HistoryItem(revision=revision, kind=kind, at_s=at_s, origin=origin, changed=changed)


def _turned_by_others(ledger: Ledger, entry: Entry) -> Iterator[HistoryItem]:
    """The items for revisions at which it went in or out of effect without being named, because an edit that covers it
    came, went or came back."""
    newer = _newer(ledger, entry)
    for span in entry.live:
        for kind, revision in zip((REVIVED, SUPERSEDED), span, strict=True):
            if revision in (NEVER, entry.committed_at):
                continue
            for other in newer:
                at = next((item for item in other.history if item.revision == revision), None)
                if at is not None:
                    yield HistoryItem(revision=revision, kind=kind, at_s=at.at_s, origin=at.origin, by=other.edit.id)
                    break


def _newer(ledger: Ledger, entry: Entry) -> list[Entry]:
    """The edits that supersede it, those that supersede them, and so on."""
    newer: dict[str, Entry] = {}
    todo = list(entry.superseded_by)
    while todo:
        edit_id = todo.pop(0)
        if edit_id not in newer:
            newer[edit_id] = ledger.entries[edit_id]
            todo.extend(newer[edit_id].superseded_by)
    return list(newer.values())
