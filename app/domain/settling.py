"""Which edits are live: each is, while nothing holds it back and nothing newer covers it. Pure, over entries.

Cover is handed down: of three corrections of one prompt the second, superseded by the third, still keeps the first out.
It flows from the newest edit to the oldest: who supersedes is younger than what it supersedes.
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
    Turning,
    named,
)

_FLAGS: Mapping[type[Turning], tuple[str, bool]] = {
    EditsRolledBack: ("rolled_back", True),
    EditsDisabled: ("disabled", True),
    EditsEnabled: ("disabled", False),
    EditsExpired: ("expired", True),
}


def is_live(entry: Entry) -> bool:
    return bool(entry.live) and entry.live[-1][1] == NEVER


def settle(entries: Mapping[str, Entry], touched: Iterable[str]) -> list[tuple[Entry, bool]]:
    """Sets who covers, from the touched edits on. -> edits whose being live turns, and to what."""
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


def with_effects(event: Turning, entries: Mapping[str, Entry]) -> Turning:
    """The event with what it does to edits that it does not name, were it applied to these entries, which stay as they
    are. An event that cannot be applied to them is given back as it is: applying it tells why."""
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


def _applied(event: Turning, entries: Mapping[str, Entry]) -> tuple[Mapping[str, Entry], tuple[str, ...]]:
    """Entries as the event leaves them before they settle, in copies, and the edits that it names."""
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
    """Of these edits, of what they supersede, and so on."""
    copies: dict[str, Entry] = {}
    while edit_ids:
        edit_id = edit_ids.pop()
        if edit_id not in copies:
            entry = entries[edit_id]
            copies[edit_id] = replace(entry, superseded_by=list(entry.superseded_by))
            edit_ids.extend(entry.edit.supersedes)
    return copies
