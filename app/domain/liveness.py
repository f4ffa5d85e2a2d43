"""The liveness of edits: an edit is live while nothing holds it back and no newer edit covers it. Pure, over entries.

Cover is transitive: of three corrections of one prompt, the second, though superseded by the third, still covers the
first. It flows from the newest edit to the oldest, since a superseding edit is always younger.
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import replace

from app.domain.entry import NEVER, Entry
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRolledBack,
    LivenessChange,
    named,
)

_FLAGS: Mapping[type[LivenessChange], tuple[str, bool]] = {
    EditsRolledBack: ("rolled_back", True),
    EditsDisabled: ("disabled", True),
    EditsEnabled: ("disabled", False),
    EditsExpired: ("expired", True),
}


def is_live(entry: Entry) -> bool:
    return bool(entry.live) and entry.live[-1][1] == NEVER


def settle(entries: Mapping[str, Entry], touched: Iterable[str]) -> list[tuple[Entry, bool]]:
    """Updates `covers` outward from the touched edits. -> entries whose liveness changes, with the new value."""
    turned: list[tuple[Entry, bool]] = []
    todo = {edit_id: entries[edit_id] for edit_id in touched}
    while todo:
        entry = todo.pop(max(todo, key=lambda edit_id: todo[edit_id].order))
        held_back = entry.staged_in is not None or entry.rolled_back or entry.disabled or entry.expired
        covered = any(entries[newer].covers for newer in entry.superseded_by)
        live = not held_back and not covered
        if live != is_live(entry):
            turned.append((entry, live))
        covers = not held_back or covered
        if covers != entry.covers:
            entry.covers = covers
            todo.update({old: entries[old] for old in entry.edit.supersedes})
    return turned


def with_effects(event: LivenessChange, entries: Mapping[str, Entry]) -> LivenessChange:
    """The event with its effects on edits that it does not name, computed without changing the entries. An event that
    does not apply is returned unchanged: applying it raises the reason."""
    try:
        trial, ids = _applied(event, entries)
    except KeyError:
        return event
    touched = dict.fromkeys([*ids, *(old for edit_id in ids for old in trial[edit_id].edit.supersedes)])
    turned = settle(trial, touched)
    others = [(entry.edit.id, live) for entry, live in turned if entry.edit.id not in ids]
    return replace(
        event,
        revived=tuple(edit_id for edit_id, live in others if live),
        superseded=tuple(edit_id for edit_id, live in others if not live),
    )


def _applied(event: LivenessChange, entries: Mapping[str, Entry]) -> tuple[Mapping[str, Entry], tuple[str, ...]]:
    """Copies of the entries as the event leaves them before they settle, and the edits that it names."""
    ids = named(event)
    if isinstance(event, EditCommitted):
        trial = _copies([*event.edit.supersedes], entries)
        trial[event.edit.id] = Entry(edit=event.edit, order=len(entries))
    else:
        trial = _copies([*ids], entries)
    for edit_id in ids:
        if isinstance(event, EditCommitted | BatchCommitted):
            trial[edit_id].staged_in = None
            for old in trial[edit_id].edit.supersedes:
                trial[old].superseded_by.append(edit_id)
        else:
            flag, value = _FLAGS[type(event)]
            setattr(trial[edit_id], flag, value)
    return ChainMap(trial, entries), ids  # type: ignore[arg-type]


def _copies(edit_ids: list[str], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Copies of the entries of these edits and of all that they supersede, transitively."""
    copies: dict[str, Entry] = {}
    while edit_ids:
        edit_id = edit_ids.pop()
        if edit_id not in copies:
            entry = entries[edit_id]
            copies[edit_id] = replace(entry, superseded_by=list(entry.superseded_by))
            edit_ids.extend(entry.edit.supersedes)
    return copies
