"""The ledger: which edits are live at which revision, as a pure fold over events."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from app.domain import events
from app.domain.approval import Approval
from app.domain.edit import Edit, State
from app.domain.entry import NEVER, Entry, KeyedOutcome, Touch
from app.domain.errors import StateConflict, StoreCorrupt, UnknownEdit
from app.domain.liveness import is_live, settle, with_effects
from app.domain.registry import Registry


def _is_ended(entry: Entry) -> bool:
    return entry.rolled_back or entry.expired


class Ledger(Registry):
    """The fold of the log. Only `apply` changes it; a refused event leaves it as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.off: dict[str | None, list[tuple[int, int]]] = {}
        """Namespace (None: all of them) -> revision intervals [from, to) in which its edits are switched off."""
        self.by_idempotency_key: dict[tuple[str | None, str], KeyedOutcome] = {}
        """(API key id, idempotency key) -> the outcome recorded under it."""
        self.probes: dict[str, tuple[str, ...]] = {}
        """Namespace -> prompts whose answers none of its edits may change."""
        self.approval = Approval()
        self.last_changes: dict[str, int] = {}
        """Namespace (empty: all of them) -> newest revision that changed what its requests see."""
        self._in_order: dict[str | None, list[Entry]] = {None: []}
        self._live: dict[str, dict[str, Entry]] = {}
        self._by_prompt: dict[tuple[str, str], list[str]] = {}
        self._expiring: dict[str, float] = {}

    # -- reading

    def entry(self, edit_id: str) -> Entry:
        try:
            return self.entries[edit_id]
        except KeyError:
            raise UnknownEdit(f"No edit has the id {edit_id!r}: GET /edits lists the ids.", edit_id=edit_id) from None

    def entries_of(self, namespace: str | None) -> Sequence[Entry]:
        """The entries of a namespace, or of all (None), staged ones included, oldest first."""
        return self._in_order.get(namespace, ())

    def state(self, edit_id: str) -> State:
        """State of an edit at the head. Raises UnknownEdit."""
        entry = self.entry(edit_id)
        if entry.staged_in is not None:
            return State.STAGED
        if entry.rolled_back:
            return State.ROLLED_BACK
        if entry.expired:
            return State.EXPIRED
        if entry.disabled:
            return State.DISABLED
        return State.LIVE if entry.live and entry.live[-1][1] == NEVER else State.SUPERSEDED

    def switched_on(self, namespace: str, revision: int | None = None) -> bool:
        at = self.revision if revision is None else revision
        intervals = (*self.off.get(None, ()), *self.off.get(namespace, ()))
        return not any(start <= at < end for start, end in intervals)

    def live(self, namespace: str, revision: int | None = None) -> list[Edit]:
        """Edits that may answer in a namespace at a revision, oldest first; none while it is switched off."""
        if not self.switched_on(namespace, revision):
            return []
        return [entry.edit for entry in self._live_entries(namespace, revision)]

    def live_fits(self, namespace: str, revision: int | None = None) -> list[str]:
        """Ids of the fits in force of the edits that `live` returns."""
        return self.unswitched_fits(namespace, revision) if self.switched_on(namespace, revision) else []

    def unswitched_fits(self, namespace: str, revision: int | None = None) -> list[str]:
        """Like `live_fits`, regardless of the edit switches."""
        return [entry.fit_id(revision) for entry in self._live_entries(namespace, revision)]

    def all_live(self) -> Iterator[Edit]:
        """Live edits of every namespace, regardless of the edit switches."""
        return (entry.edit for entries in self._live.values() for entry in entries.values())

    def live_count(self, namespace: str | None = None) -> int:
        """Number of live edits in a namespace, or in all (None)."""
        if namespace is not None:
            return len(self._live.get(namespace, ()))
        return sum(map(len, self._live.values()))

    def last_change(self, namespace: str, revision: int | None = None) -> int:
        """Newest revision, at most `revision`, that may have changed what requests in the namespace see."""
        head = max(self.last_changes.get(namespace, 0), self.last_changes.get("", 0))
        return head if revision is None or revision >= head else revision

    def with_prompt(self, namespace: str, prompt: str, *states: State) -> list[str]:
        """Ids of edits in one of the states with exactly this prompt, ignoring white space at its ends."""
        ids = self._by_prompt.get((namespace, prompt.strip()), ())
        return [edit_id for edit_id in ids if self.state(edit_id) in states]

    def with_superseded(self, edit_ids: Iterable[str]) -> tuple[str, ...]:
        """Transitive closure over `supersedes`: the edits, those that they supersede, and so on."""
        ids: dict[str, None] = {}
        todo = list(edit_ids)
        while todo:
            edit_id = todo.pop()
            if edit_id not in ids:
                ids[edit_id] = None
                todo.extend(self.entry(edit_id).edit.supersedes)
        return tuple(ids)

    def done_under(self, origin: events.Origin) -> KeyedOutcome | None:
        """The outcome recorded under the origin's idempotency key by the same API key, if any."""
        if origin.idempotency_key is None:
            return None
        return self.by_idempotency_key.get((origin.key_id, origin.idempotency_key))

    def due(self, now_s: float) -> list[str]:
        """Ids of edits whose time has run out, but which no event has marked as expired yet."""
        return [edit_id for edit_id, at_s in self._expiring.items() if at_s <= now_s]

    def as_recorded(self, event: events.Event) -> events.Event:
        """The event as it is recorded at the head: with its effects on edits that it does not name."""
        return with_effects(event, self.entries) if isinstance(event, events.LivenessChange) else event

    # -- folding

    def apply(self, event: events.Event) -> None:
        """Folds one event. Raises StoreCorrupt for a gap, UnknownEdit or StateConflict for an event that the state
        forbids."""
        if event.revision != self.revision + 1:
            raise StoreCorrupt(f"Event {event.revision} does not follow revision {self.revision}: the log has a gap.")
        self.approval.check(event)
        touched: tuple[str, ...] = ()
        match event:
            case events.EditCommitted(edit=edit) | events.EditStaged(edit=edit):
                staged_in = event.batch_id if isinstance(event, events.EditStaged) else None
                self._add(edit, staged_in, event.revision)
                touched = (edit.id, *(edit.supersedes if staged_in is None else ()))
            case events.BatchCommitted(batch_id=batch_id, edit_ids=ids):
                touched = self._close(batch_id, ids, event.revision)
            case events.EditsRefitted(fits=fits):
                touched = event.edit_ids
                entries = self._allowed(touched, "refit", lambda entry: entry.rolled_back)
                for entry, fit in zip(entries, fits, strict=True):
                    entry.refits.append((event.revision, fit))
            case events.EditRetuned(fit=fit, request=request, report=report):
                touched = event.edit_ids
                (entry,) = self._allowed(touched, "retune", _is_ended)
                entry.refits.append((event.revision, fit))
                entry.retunes.append((event.revision, request, report))
            case events.ProbesSet(namespace=name, prompts=prompts):
                self.probes[name] = prompts
            case events.PolicySet() | events.ProposalEvent():
                self.approval.apply(event)
            case events.EditsRolledBack(edit_ids=ids):
                touched = self._flag(ids, "roll back", lambda entry: entry.rolled_back, "rolled_back", True)
            case events.EditsDisabled(edit_ids=ids):
                touched = self._flag(ids, "disable", lambda e: e.rolled_back or e.disabled, "disabled", True)
            case events.EditsEnabled(edit_ids=ids):
                touched = self._flag(ids, "enable", lambda e: e.rolled_back or not e.disabled, "disabled", False)
            case events.EditsExpired(edit_ids=ids):
                touched = self._flag(ids, "expire", lambda e: e.rolled_back or e.expired, "expired", True)
            case events.SwitchSet(namespace=namespace, on=on):
                self._switch(namespace, on, event.revision)
            case _:
                self._enroll(event)
        self.revision = event.revision
        self._settle(touched)
        self._note(event, touched)
        self.approval.note(event, self.entries)

    def resume(self, revision: int) -> None:
        """Rebuilds the derived indexes of a ledger whose parts come from a snapshot taken at `revision`."""
        assert not self.revision
        assert not self._live
        self.revision = revision
        self.approval.resume()
        for entry in self.entries.values():
            self._order(entry)
        committed = [(entry.committed_at, entry) for entry in self.entries.values() if entry.committed_at is not None]
        for _, entry in sorted(committed, key=lambda pair: pair[0]):
            edit = entry.edit
            self._by_prompt.setdefault((edit.request.namespace, edit.request.prompt.strip()), []).append(edit.id)
            if edit.expires_at_s is not None and not entry.rolled_back and not entry.expired:
                self._expiring[edit.id] = edit.expires_at_s
            if is_live(entry):
                self._live.setdefault(edit.request.namespace, {})[edit.id] = entry

    def check(self, event_type: type[events.Event], edit_ids: Iterable[str]) -> None:
        """Raises what `apply` would raise for an event of this type on these edits; changes nothing."""
        forbidden: dict[type[events.Event], tuple[str, Callable[[Entry], bool]]] = {
            events.EditsRolledBack: ("roll back", lambda e: e.rolled_back),
            events.EditsDisabled: ("disable", lambda e: e.rolled_back or e.disabled),
            events.EditsEnabled: ("enable", lambda e: e.rolled_back or not e.disabled),
            events.EditRetuned: ("retune", _is_ended),
        }
        verb, refuses = forbidden[event_type]
        self._allowed(edit_ids, verb, refuses)

    def check_switch(self, namespace: str | None, on: bool) -> None:
        """Raises what `apply` would raise for this setting of the edit switch."""
        intervals = self.off.get(namespace)
        is_on = not intervals or intervals[-1][1] != NEVER
        if on == is_on:
            where = "this namespace" if namespace else "all namespaces"
            raise StateConflict(f"Edits of {where} are switched {'on' if on else 'off'} already.")

    def _add(self, edit: Edit, staged_in: str | None, revision: int) -> None:
        if edit.id in self.entries:
            raise StateConflict(f"The edit {edit.id} is in the log already.", edit_id=edit.id)
        for old in edit.supersedes:
            self.entry(old)
        entry = self.entries[edit.id] = Entry(edit=edit, order=len(self.entries), staged_in=staged_in)
        self._order(entry)
        if staged_in is None:
            self._go_live(entry, revision)

    def _order(self, entry: Entry) -> None:
        self._in_order[None].append(entry)
        self._in_order.setdefault(entry.edit.request.namespace, []).append(entry)

    def _go_live(self, entry: Entry, revision: int) -> None:
        edit, entry.committed_at = entry.edit, revision
        for old in edit.supersedes:
            self.entries[old].superseded_by.append(edit.id)
        self._by_prompt.setdefault((edit.request.namespace, edit.request.prompt.strip()), []).append(edit.id)
        if edit.expires_at_s is not None:
            self._expiring[edit.id] = edit.expires_at_s

    def _close(self, batch_id: str, ids: tuple[str, ...], revision: int) -> tuple[str, ...]:
        staged = [self.entry(edit_id) for edit_id in ids]
        if any(entry.staged_in != batch_id for entry in staged):
            raise StateConflict(f"The batch {batch_id} names an edit that is not staged in it.", edit_ids=list(ids))
        touched = list(ids)
        for entry in staged:
            entry.staged_in = None
            self._go_live(entry, revision)
            touched.extend(entry.edit.supersedes)
        return tuple(touched)

    def _allowed(self, ids: Iterable[str], verb: str, refuses: Callable[[Entry], bool]) -> list[Entry]:
        entries = [self.entry(edit_id) for edit_id in ids]
        for entry in entries:
            if entry.staged_in is not None or refuses(entry):
                state = self.state(entry.edit.id).value
                raise StateConflict(
                    f"Cannot {verb} the edit {entry.edit.id}: it is {state.replace('_', ' ')}. "
                    f"GET /edits/{entry.edit.id} shows its history.",
                    edit_id=entry.edit.id,
                    state=state,
                )
        return entries

    def _flag(
        self, ids: tuple[str, ...], verb: str, refuses: Callable[[Entry], bool], flag: str, value: bool
    ) -> tuple[str, ...]:
        for entry in self._allowed(ids, verb, refuses):
            setattr(entry, flag, value)
            if entry.rolled_back or entry.expired:
                self._expiring.pop(entry.edit.id, None)
        return ids

    def _switch(self, namespace: str | None, on: bool, revision: int) -> None:
        self.check_switch(namespace, on)
        intervals = self.off.setdefault(namespace, [])
        if on:
            intervals[-1] = (intervals[-1][0], revision)
        else:
            intervals.append((revision, NEVER))

    def _settle(self, touched: Iterable[str]) -> None:
        """Opens and closes live intervals after an event has changed the touched edits."""
        for entry, live in settle(self.entries, touched):
            self._set_live(entry, live)

    def _set_live(self, entry: Entry, live: bool) -> None:
        # `_note` covers only edits that the event names; this one may change in another namespace.
        self.last_changes[entry.edit.request.namespace] = self.revision
        namespace = self._live.setdefault(entry.edit.request.namespace, {})
        if live:
            entry.live.append((self.revision, NEVER))
            namespace[entry.edit.id] = entry
        else:
            start, _ = entry.live.pop()
            entry.live.append((start, self.revision))
            del namespace[entry.edit.id]

    def _live_entries(self, namespace: str, revision: int | None) -> Iterator[Entry]:
        if revision is None or revision >= self.last_change(namespace):
            entries: Iterable[Entry] = self._live.get(namespace, {}).values()
        else:
            entries = [entry for entry in self.entries_of(namespace) if entry.live_at(revision)]
        return iter(sorted(entries, key=lambda entry: entry.order))

    def _note(self, event: events.Event, touched: tuple[str, ...]) -> None:
        for edit_id in dict.fromkeys(touched):
            self.entries[edit_id].history.append(Touch.of(event))
            if not isinstance(event, events.EditStaged):  # no request sees a staged edit
                self.last_changes[self.entries[edit_id].edit.request.namespace] = event.revision
        if isinstance(event, events.SwitchSet):
            self.last_changes[event.namespace or ""] = event.revision
        if event.origin.idempotency_key is not None:
            mark = (event.origin.key_id, event.origin.idempotency_key)
            self.by_idempotency_key[mark] = KeyedOutcome(event.origin.digest or "", event.revision, touched)
