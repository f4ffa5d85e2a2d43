"""The ledger against a model that is too simple to be wrong: it reads the whole list of events for every question."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.edit import State
from app.domain.errors import StateConflict, UnknownEdit
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditRetuned,
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRefitted,
    EditsRolledBack,
    EditStaged,
    LivenessChange,
    SwitchSet,
)
from app.domain.ledger import Ledger
from app.domain.snapshot import ledger_of, records_of
from tests.domain.samples import change, closed, committed, refitted, retuned, staged, switched

NAMESPACES = ("default", "other")


class Model:
    """The state after a list of events, computed from scratch."""

    def __init__(self, events):
        self.edits = {}
        self.batch_of = {}
        self.rolled_back, self.disabled, self.expired = set(), set(), set()
        self.off = set()
        for event in events:
            match event:
                case EditCommitted():
                    self.edits[event.edit.id] = event.edit
                case EditStaged():
                    self.edits[event.edit.id] = event.edit
                    self.batch_of[event.edit.id] = event.batch_id
                case BatchCommitted():
                    for id in event.edit_ids:
                        del self.batch_of[id]
                case EditRetuned():
                    self.edits[event.fit.edit_id] = replace(self.edits[event.fit.edit_id], request=event.request)
                case EditsRolledBack():
                    self.rolled_back.update(event.edit_ids)
                case EditsDisabled():
                    self.disabled.update(event.edit_ids)
                case EditsEnabled():
                    self.disabled.difference_update(event.edit_ids)
                case EditsExpired():
                    self.expired.update(event.edit_ids)
                case SwitchSet():
                    (self.off.discard if event.on else self.off.add)(event.namespace)

    def stands(self, id):
        return id not in self.batch_of and id not in self.rolled_back | self.disabled | self.expired

    def covered(self, id):
        newer = [e.id for e in self.edits.values() if id in e.supersedes and e.id not in self.batch_of]
        return any(self.stands(other) or self.covered(other) for other in newer)

    def state(self, id):
        if id in self.batch_of:
            return State.STAGED
        for ids, state in (
            (self.rolled_back, State.ROLLED_BACK),
            (self.expired, State.EXPIRED),
            (self.disabled, State.DISABLED),
        ):
            if id in ids:
                return state
        return State.SUPERSEDED if self.covered(id) else State.LIVE

    def answers(self, id):
        return self.state(id) is State.LIVE

    def live(self, namespace):
        if self.off & {None, namespace}:
            return []
        ours = [id for id, edit in self.edits.items() if edit.request.namespace == namespace]
        return [id for id in ours if self.state(id) is State.LIVE]

    def due(self, now_s):
        out = self.rolled_back | self.expired | self.batch_of.keys()
        timed = {id: e.expires_at_s for id, e in self.edits.items() if id not in out and e.expires_at_s is not None}
        return {id for id, at_s in timed.items() if at_s <= now_s}

    def allows(self, event):
        match event:
            case EditCommitted(edit=edit) | EditStaged(edit=edit):
                return edit.id not in self.edits and all(old in self.edits for old in edit.supersedes)
            case BatchCommitted():
                return all(self.batch_of.get(id) == event.batch_id for id in event.edit_ids)
            case EditsRefitted():
                return all(
                    id in self.edits and id not in self.batch_of and id not in self.rolled_back for id in event.edit_ids
                )
            case EditRetuned(edit_ids=(id,)):
                return id in self.edits and id not in self.batch_of and id not in self.rolled_back | self.expired
            case SwitchSet():
                return event.on == (event.namespace in self.off)
        for id in event.edit_ids:
            if id not in self.edits or id in self.batch_of or id in self.rolled_back:
                return False
            refused = {
                EditsRolledBack: False,
                EditsDisabled: id in self.disabled,
                EditsEnabled: id not in self.disabled,
                EditsExpired: id in self.expired,
            }
            if refused[type(event)]:
                return False
        return True


class LedgerAgainstModel(RuleBasedStateMachine):
    """Most steps are allowed; `rarely` puts in one that must be refused."""

    rarely = st.sampled_from([False] * 9 + [True])

    @initialize()
    def begin(self):
        self.ledger, self.events, self.lives = Ledger(), [], [{name: [] for name in NAMESPACES}]

    def apply(self, event):
        told = self.ledger.as_recorded(event)
        if Model(self.events).allows(event):
            before = Model(self.events)
            self.ledger.apply(told)
            if isinstance(told, LivenessChange):
                after = Model([*self.events, event])
                named = {event.edit.id} if isinstance(event, EditCommitted) else set(event.edit_ids)
                others = set(before.edits) - named
                assert set(told.revived) == {i for i in others if after.answers(i) and not before.answers(i)}
                assert set(told.superseded) == {i for i in others if before.answers(i) and not after.answers(i)}
            self.events.append(event)
            model = Model(self.events)
            self.lives.append({name: model.live(name) for name in NAMESPACES})
            return
        try:
            self.ledger.apply(event)
        except (StateConflict, UnknownEdit):
            return
        raise AssertionError(f"{event} should have been refused")

    @property
    def next(self):
        return len(self.events) + 1

    def known(self):
        return [event.edit.id for event in self.events if isinstance(event, EditCommitted | EditStaged)]

    @rule(
        data=st.data(),
        namespace=st.sampled_from(NAMESPACES),
        prompt=st.sampled_from(["P?", "Q?"]),
        expires_at_s=st.sampled_from([None, 1.0, 2.0]),
        batch=st.sampled_from([None, None, None, "B", "C"]),
    )
    def add(self, data, namespace, prompt, expires_at_s, batch):
        known = self.known()
        # Mostly what came last, so that chains of corrections grow.
        supersedes = data.draw(st.lists(st.sampled_from(known[-3:]), max_size=2, unique=True)) if known else []
        fields = {
            "namespace": namespace,
            "prompt": prompt,
            "expires_at_s": expires_at_s,
            "supersedes": ("nobody",) if data.draw(self.rarely) else tuple(supersedes),
        }
        id = "e0" if data.draw(self.rarely) else f"e{len(known)}"
        self.apply(committed(self.next, id, **fields) if batch is None else staged(self.next, batch, id, **fields))

    @precondition(lambda self: self.known())
    @rule(
        data=st.data(),
        kind=st.sampled_from([EditsRolledBack, EditsDisabled, EditsEnabled, EditsExpired]),
        at_random=rarely,
    )
    def change(self, data, kind, at_random):
        model = Model(self.events)
        ids = self.known()
        if not at_random:
            ids = [id for id in ids if model.allows(change(kind, self.next, id))] or ids
        self.apply(change(kind, self.next, *data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=2))))

    @precondition(lambda self: self.known())
    @rule(data=st.data())
    def refit(self, data):
        self.apply(refitted(self.next, *data.draw(st.lists(st.sampled_from(self.known()), min_size=1, unique=True))))

    @precondition(lambda self: self.known())
    @rule(data=st.data(), paraphrase=st.sampled_from(["R?", "S?"]))
    def retune(self, data, paraphrase):
        edit = Model(self.events).edits[id := data.draw(st.sampled_from(self.known()))]
        fields = {"namespace": edit.request.namespace, "prompt": edit.request.prompt, "paraphrases": (paraphrase,)}
        self.apply(retuned(self.next, id, **fields))

    @precondition(lambda self: Model(self.events).batch_of)
    @rule(data=st.data(), at_random=rarely)
    def close(self, data, at_random):
        batch_of = Model(self.events).batch_of
        batch = data.draw(st.sampled_from(sorted(set(batch_of.values()))))
        ids = [id for id, name in batch_of.items() if name == batch or at_random]
        self.apply(closed(self.next, batch, *ids))

    @rule(namespace=st.sampled_from([None, *NAMESPACES]), again=rarely)
    def switch(self, namespace, again):
        is_off = namespace in Model(self.events).off
        self.apply(switched(self.next, namespace, on=is_off != again))

    @rule()
    def restart_from_a_snapshot(self):
        self.ledger = ledger_of(self.ledger.revision, list(records_of(self.ledger)))

    @invariant()
    def a_snapshot_leaves_nothing_out(self):
        again = ledger_of(self.ledger.revision, list(records_of(self.ledger)))
        before = dict(self.ledger.__dict__)
        before["_live"] = {name: entries for name, entries in before["_live"].items() if entries}
        assert again.__dict__ == before

    @invariant()
    def every_revision_shows_what_was_live_then(self):
        for revision, lives in enumerate(self.lives):
            for namespace in NAMESPACES:
                assert [edit.id for edit in self.ledger.live(namespace, revision)] == lives[namespace]

    @invariant()
    def every_revision_shows_what_each_edit_acted_by_then(self):
        refits = {id: [] for id in self.known()}
        for event in self.events:
            for id in event.edit_ids if isinstance(event, EditsRefitted | EditRetuned) else ():
                refits[id].append(event.revision)
        for revision, lives in enumerate(self.lives):
            for namespace in NAMESPACES:
                newest = {id: max((at for at in refits[id] if at <= revision), default=None) for id in lives[namespace]}
                fits = [id if at is None else f"{id}@{at}" for id, at in newest.items()]
                assert self.ledger.live_fits(namespace, revision) == fits

    @invariant()
    def the_head_agrees(self):
        model = Model(self.events)
        assert self.ledger.revision == len(self.events)
        assert {id: self.ledger.state(id) for id in self.ledger.entries} == {id: model.state(id) for id in model.edits}
        assert {id: entry.request for id, entry in self.ledger.entries.items()} == {
            id: edit.request for id, edit in model.edits.items()
        }
        for now_s in (0.0, 1.0, 2.0):
            assert set(self.ledger.due(now_s)) == model.due(now_s)

    @invariant()
    def last_change_is_no_older_than_the_newest_change(self):
        for namespace in NAMESPACES:
            for head in range(len(self.lives)):
                at = self.ledger.last_change(namespace, head)
                assert all(self.lives[at][namespace] == lives[namespace] for lives in self.lives[at : head + 1])

    @invariant()
    def intervals_are_apart_and_in_order(self):
        for entry in self.ledger.entries.values():
            ends = [end for interval in entry.live for end in interval]
            assert all(start < end for start, end in entry.live)
            assert ends == sorted(ends)


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
