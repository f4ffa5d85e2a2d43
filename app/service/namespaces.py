"""Namespaces and the state of their edit switches. Changes nothing; does not import torch."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches

from app.domain.entry import NEVER
from app.domain.errors import RevisionGone, UnknownNamespace
from app.domain.ledger import Ledger
from app.service.edit_history import actor_of
from app.service.records import Records
from app.service.views import HistoryItem

DEFAULT = "default"
"""The namespace of requests that name none; it always exists."""
MOST_COMPARED = 1_000
"""The most namespaces among which the one that was meant is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace. `answering` is false if its own switch or that of all namespaces is off."""

    name: str
    edits: int
    live_edits: int
    probes: int
    answering: bool
    second_person: bool = False
    """True if each of its edits needs a second person."""
    description: str = ""
    """Its purpose, if somebody described it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSwitch:
    """An edit switch of a namespace, or (None) of all; `set` is the event that last set it, if the log still has it."""

    namespace: str | None
    on: bool
    since: int | None
    """The revision that last set it; None if it was never set."""
    set: HistoryItem | None = None


def namespaces(ledger: Ledger, configured: Collection[str] = ()) -> list[Namespace]:
    """The namespaces that were ever used, and those that the settings name."""
    return [
        Namespace(
            name=name,
            edits=sum(entry.staged_in is None for entry in ledger.entries_of(name)),
            live_edits=ledger.live_count(name),
            probes=len(ledger.probes.get(name, ())),
            answering=ledger.switched_on(name),
            second_person=ledger.approval.needs_second_person((name,)),
            description=ledger.described.get(name, ""),
        )
        for name in sorted(_names(ledger, configured))
    ]


def check_known(ledger: Ledger, name: str | None, configured: Collection[str] = ()) -> None:
    """Raises UnknownNamespace for a namespace that was never used: its name is most likely misspelt."""
    if name is None or (name and name in ledger.last_changes):
        return
    known = _names(ledger, configured)
    if name in known:
        return
    close = get_close_matches(name, known, 1, 0.6) if len(known) <= MOST_COMPARED else []
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNamespace(
        f"There is no namespace {name!r}: no edit, probe or setting names it.{hint} GET /namespaces lists them.",
        namespace=name,
    )


def switches(ledger: Ledger) -> list[EditSwitch]:
    """The switch of all namespaces first, then those that were ever set."""
    names = sorted(name for name in ledger.off if name is not None)
    return [_switch(ledger, name) for name in (None, *names)]


def explained(records: Records, switch: EditSwitch) -> EditSwitch:
    """The switch with the person and reason that last set it, read from the log itself; blocks."""
    if switch.since is None:
        return switch
    try:
        ((event, _),) = records.events(switch.since - 1, 1)
    except RevisionGone:  # the log was trimmed; its archive has the event
        return switch
    origin = replace(event.origin, actor=actor_of(event.origin, records.ledger.keys))
    item = HistoryItem(revision=event.revision, kind=event.kind, at_s=event.at_s, origin=origin)
    return EditSwitch(namespace=switch.namespace, on=switch.on, since=switch.since, set=item)


def switched_off(ledger: Ledger) -> tuple[str, ...]:
    """The namespaces whose own switch is off."""
    return tuple(each.namespace for each in switches(ledger) if each.namespace is not None and not each.on)


def _switch(ledger: Ledger, name: str | None) -> EditSwitch:
    spans = ledger.off.get(name)
    if not spans:
        return EditSwitch(namespace=name, on=True, since=None)
    began, ended = spans[-1]
    on = ended != NEVER
    return EditSwitch(namespace=name, on=on, since=ended if on else began)


def _names(ledger: Ledger, configured: Collection[str]) -> set[str]:
    used = {name for name in ledger.last_changes if name}
    switched = {name for name in ledger.off if name is not None}
    return {DEFAULT, *configured, *used, *ledger.probes, *switched, *ledger.approval.policies, *ledger.described}
