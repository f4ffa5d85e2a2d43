"""The ledger by example: what is live at which revision after which events."""

import copy

import pytest

from app.domain.edit import State
from app.domain.entry import Entry, KeyedOutcome, Touch
from app.domain.errors import StateConflict, StoreCorrupt, UnknownEdit
from app.domain.events import EditCommitted, EditsDisabled, EditsEnabled, EditsExpired, EditsRolledBack, Origin
from app.domain.ledger import Ledger
from tests.domain.samples import change, closed, committed, edit, rolled_back, staged, switched


def fold(*events):
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


def live(ledger, revision=None, namespace="default"):
    return [edit.id for edit in ledger.live(namespace, revision)]


def contents(ledger):
    return copy.deepcopy(vars(ledger))


def test_an_empty_ledger_knows_nothing():
    ledger = Ledger()
    assert (ledger.revision, live(ledger), ledger.live_count(), ledger.due(1e12)) == (0, [], 0, [])
    with pytest.raises(UnknownEdit):
        ledger.entry("e1")


def test_a_commit_is_live_from_its_revision_on():
    ledger = fold(committed(1, "a"), committed(2, "b", prompt="Other?"))
    assert [live(ledger, revision) for revision in (0, 1, 2)] == [[], ["a"], ["a", "b"]]
    assert ledger.state("a") is State.LIVE


def test_an_older_revision_is_looked_for_in_its_namespace_only(monkeypatch):
    """A request that names a revision must not take longer for the edits that other namespaces have."""
    ledger = fold(committed(1, "a"), committed(2, "b", namespace="elsewhere"), committed(3, "c", prompt="Other?"))
    looked, live_at = [], Entry.live_at
    monkeypatch.setattr(Entry, "live_at", lambda entry, at: looked.append(entry.edit.id) or live_at(entry, at))
    assert live(ledger, 1) == ["a"]
    assert looked == ["a", "c"]
    assert [entry.edit.id for entry in ledger.entries_of("default")] == ["a", "c"]
    assert [entry.edit.id for entry in ledger.entries_of(None)] == ["a", "b", "c"]
    assert list(ledger.entries_of("nowhere")) == []
    assert [ledger.live_count(name) for name in ("default", "elsewhere", "nowhere", None)] == [2, 1, 0, 3]


def test_superseding_takes_the_older_out_in_the_same_step():
    ledger = fold(committed(1, "a"), committed(2, "b", supersedes=("a",)))
    assert [live(ledger, revision) for revision in (1, 2)] == [["a"], ["b"]]
    assert ledger.state("a") is State.SUPERSEDED


def test_rolling_back_the_superseder_revives_the_older():
    ledger = fold(committed(1, "a"), committed(2, "b", supersedes=("a",)), rolled_back(3, "b"))
    assert [live(ledger, revision) for revision in (1, 2, 3)] == [["a"], ["b"], ["a"]]
    assert (ledger.state("a"), ledger.state("b")) == (State.LIVE, State.ROLLED_BACK)


def test_a_third_correction_does_not_revive_the_first():
    chain = (committed(1, "a"), committed(2, "b", supersedes=("a",)), committed(3, "c", supersedes=("b",)))
    assert live(fold(*chain)) == ["c"]
    assert live(fold(*chain, rolled_back(4, "b"))) == ["c"]
    assert live(fold(*chain, rolled_back(4, "c"))) == ["b"]
    assert live(fold(*chain, rolled_back(4, "b", "c"))) == ["a"]
    assert live(fold(*chain, rolled_back(4, "b"), rolled_back(5, "c"))) == ["a"]


def test_a_revival_in_another_namespace_is_a_change_there():
    ledger = fold(committed(1, "a"), committed(2, "b", namespace="other", supersedes=("a",)))
    ledger.apply(committed(3, "c", namespace="third", supersedes=("b",)))
    ledger.apply(rolled_back(4, "b"))
    ledger.apply(rolled_back(5, "c"))
    assert [live(ledger, revision) for revision in range(6)] == [[], ["a"], [], [], [], ["a"]]
    assert ledger.last_change("default") == 5


def test_disable_and_enable_are_interval_ends():
    ledger = fold(committed(1, "a"), change(EditsDisabled, 2, "a"), change(EditsEnabled, 3, "a"))
    assert [live(ledger, revision) for revision in (1, 2, 3)] == [["a"], [], ["a"]]
    assert [start for start, _ in ledger.entry("a").live] == [1, 3]


def test_an_edit_enabled_while_superseded_stays_out():
    ledger = fold(committed(1, "a"), change(EditsDisabled, 2, "a"), committed(3, "b", supersedes=("a",)))
    ledger.apply(change(EditsEnabled, 4, "a"))
    assert (live(ledger), ledger.state("a")) == (["b"], State.SUPERSEDED)


def test_expiry_is_an_event_and_due_until_then():
    ledger = fold(committed(1, "a", expires_at_s=100.0), committed(2, "b", supersedes=("a",), expires_at_s=50.0))
    assert (ledger.due(49.0), ledger.due(50.0), sorted(ledger.due(100.0))) == ([], ["b"], ["a", "b"])
    assert live(ledger) == ["b"]
    ledger.apply(change(EditsExpired, 3, "b"))
    assert (live(ledger), ledger.state("b"), ledger.due(100.0)) == (["a"], State.EXPIRED, ["a"])
    ledger.apply(rolled_back(4, "a"))
    assert ledger.due(1e12) == []


def test_the_edit_switch_of_a_namespace_leaves_the_others():
    ledger = fold(committed(1, "a"), committed(2, "b", namespace="other"), switched(3, "default", False))
    assert (live(ledger), live(ledger, namespace="other")) == ([], ["b"])
    ledger.apply(switched(4, "default", True))
    assert [live(ledger, revision) for revision in (2, 3, 4)] == [["a"], [], ["a"]]
    assert ledger.state("a") is State.LIVE


def test_the_global_edit_switch_is_apart_from_those_of_namespaces():
    ledger = fold(committed(1, "a"), committed(2, "b", namespace="other"), switched(3, None, False))
    assert (live(ledger), live(ledger, namespace="other")) == ([], [])
    ledger.apply(switched(4, "other", False))
    ledger.apply(switched(5, None, True))
    assert (live(ledger), live(ledger, namespace="other")) == (["a"], [])
    assert [ledger.switched_on("default", revision) for revision in range(6)] == [True, True, True, False, False, True]
    assert (ledger.last_change("default"), ledger.last_change("never used")) == (5, 5)


def test_a_batch_is_live_from_its_closing_event_on():
    ledger = fold(committed(1, "old"), staged(2, "B", "a", supersedes=("old",)), staged(3, "B", "b", prompt="Other?"))
    assert (live(ledger), ledger.state("a"), ledger.due(1e12)) == (["old"], State.STAGED, [])
    ledger.apply(closed(4, "B", "a", "b"))
    assert [live(ledger, revision) for revision in (1, 2, 3, 4)] == [["old"], ["old"], ["old"], ["a", "b"]]
    assert ledger.state("old") is State.SUPERSEDED
    assert ledger.entry("old").history[-1].revision == 4


def test_a_batch_that_is_never_closed_is_never_live():
    ledger = fold(staged(1, "B", "a", expires_at_s=1.0), committed(2, "b", prompt="Other?"))
    assert (live(ledger), ledger.state("a"), ledger.due(1e12)) == (["b"], State.STAGED, [])
    for kind in (EditsRolledBack, EditsDisabled, EditsExpired):
        with pytest.raises(StateConflict, match="staged"):
            ledger.apply(change(kind, 3, "a"))


def test_of_two_staged_for_one_prompt_the_newest_goes_live():
    ledger = fold(staged(1, "B", "a"), staged(2, "B", "b", supersedes=("a",)), closed(3, "B", "a", "b"))
    assert (live(ledger), ledger.entry("a").live) == (["b"], [])
    ledger.apply(rolled_back(4, "b"))
    assert live(ledger) == ["a"]


REFUSED = [
    (committed(9, "x"), StoreCorrupt),
    (committed(6, "x"), StoreCorrupt),
    (committed(7, "a"), StateConflict),
    (committed(7, "x", supersedes=("a", "nobody")), UnknownEdit),
    (staged(7, "B", "x", supersedes=("nobody",)), UnknownEdit),
    (closed(7, "B", "s", "a"), StateConflict),
    (closed(7, "B", "s", "nobody"), UnknownEdit),
    (closed(7, "C", "s"), StateConflict),
    (rolled_back(7, "a", "gone"), StateConflict),
    (rolled_back(7, "a", "nobody"), UnknownEdit),
    (rolled_back(7, "a", "s"), StateConflict),
    (change(EditsDisabled, 7, "a", "off"), StateConflict),
    (change(EditsDisabled, 7, "gone"), StateConflict),
    (change(EditsEnabled, 7, "off", "a"), StateConflict),
    (change(EditsEnabled, 7, "gone"), StateConflict),
    (change(EditsExpired, 7, "a", "gone"), StateConflict),
    (switched(7, "default", True), StateConflict),
    (switched(7, "unheard", True), StateConflict),
    (switched(7, None, True), StateConflict),
]


@pytest.mark.parametrize(("event", "error"), REFUSED)
def test_a_refused_event_leaves_the_ledger_unchanged(event, error):
    ledger = fold(
        committed(1, "a", expires_at_s=50.0),
        committed(2, "gone"),
        rolled_back(3, "gone"),
        committed(4, "off"),
        change(EditsDisabled, 5, "off"),
        staged(6, "B", "s"),
    )
    before = contents(ledger)
    with pytest.raises(error):
        ledger.apply(event)
    assert contents(ledger) == before


def test_the_switch_cannot_be_thrown_twice():
    ledger = fold(switched(1, None, False))
    with pytest.raises(StateConflict, match="switched off already"):
        ledger.apply(switched(2, None, False))


@pytest.mark.parametrize("kind", [EditsRolledBack, EditsDisabled, EditsEnabled])
def test_check_foretells_apply(kind):
    events = (committed(1, "a"), committed(2, "off", prompt="Other?"), change(EditsDisabled, 3, "off"))
    for target in ("a", "off", "nobody"):
        outcomes = []
        for ask in (
            lambda ledger, ids: ledger.check(kind, ids),
            lambda ledger, ids: ledger.apply(change(kind, 4, *ids)),
        ):
            try:
                ask(fold(*events), (target,))
                outcomes.append(None)
            except (StateConflict, UnknownEdit) as error:
                outcomes.append((type(error), error.message))
        assert outcomes[0] == outcomes[1]


def test_history_tells_every_event_that_touched_an_edit():
    origin = Origin(actor="mo", reason="wrong again", request_id="r-2")
    ledger = fold(committed(1, "a"))
    ledger.apply(EditCommitted(revision=2, at_s=20.0, origin=origin, edit=edit("b", supersedes=("a",))))
    ledger.apply(rolled_back(3, "b"))
    assert [(touch.revision, touch.kind) for touch in ledger.entry("a").history] == [
        (1, "edit_committed"),
        (2, "edit_committed"),
    ]
    assert ledger.entry("b").history[0] == Touch(revision=2, kind="edit_committed", at_s=20.0, origin=origin)
    assert (ledger.entry("b").history[1].revision, ledger.entry("b").history[1].kind) == (3, "edits_rolled_back")


def test_the_same_prompt_is_found_only_while_live_and_in_its_namespace():
    ledger = fold(committed(1, "a", prompt="Who? "), committed(2, "b", prompt="Who?", namespace="other"))
    assert ledger.with_prompt("default", " Who?", State.LIVE) == ["a"]
    ledger.apply(change(EditsDisabled, 3, "a"))
    assert ledger.with_prompt("default", "Who?", State.LIVE) == []


def test_an_idempotency_key_leads_to_its_event():
    ledger = fold(
        EditCommitted(revision=1, at_s=0.0, origin=Origin(idempotency_key="k", digest="d"), edit=edit("a")),
        committed(2, "b"),
    )
    assert ledger.by_idempotency_key == {(None, "k"): KeyedOutcome("d", 1, ("a",))}
    assert ledger.done_under(Origin(idempotency_key="k", key_id="another's")) is None
