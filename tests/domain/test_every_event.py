"""A ledger of every kind of event: what it knows of each, and that a snapshot leaves nothing of it out."""

from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.errors import StateConflict
from app.domain.events import EditRetuned, EditsDisabled, EditsEnabled, EditsRolledBack, Event, KeyRevoked, Origin
from app.domain.keys import Role
from app.domain.ledger import Ledger
from app.domain.snapshot import RefitRecord, RetuneRecord, ledger_of, records_of
from tests.domain.samples import closed, committed, refitted, request, retuned, rolled_back, staged, switched
from tests.store.test_released import ORIGIN, REFIT, REQUEST, RETUNED, SIXTH


def folded(events: list[Event] = SIXTH) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


def all_of(ledger: Ledger) -> dict[str, Any]:
    """All that it holds; namespaces whose last edit is gone aside."""
    found = dict(vars(ledger))
    found["_live"] = {name: entries for name, entries in found["_live"].items() if entries}
    return found


@pytest.mark.parametrize("head", range(1, len(SIXTH) + 1))
def test_a_snapshot_at_any_revision_leaves_nothing_out(head: int) -> None:
    ledger = folded(SIXTH[:head])
    again = ledger_of(head, list(records_of(ledger)))
    assert all_of(again) == all_of(ledger)
    for event in SIXTH[head:]:
        again.apply(event)
    assert all_of(again) == all_of(folded())


def test_records_of_edits_that_are_not_there_or_there_twice_are_refused() -> None:
    records = list(records_of(folded()))
    with pytest.raises(ValueError, match="the edit e1 is in it twice"):
        ledger_of(1, [*records, records[0]])
    retune = next(record for record in records if isinstance(record, RetuneRecord))
    with pytest.raises(ValueError, match="a retuning of e1 before the record of that edit"):
        ledger_of(1, [retune])
    refit = next(record for record in records if isinstance(record, RefitRecord))
    with pytest.raises(ValueError, match="a refit of e1 before the record of that edit"):
        ledger_of(1, [refit])


def test_an_edit_acts_by_its_newest_fit_of_a_revision() -> None:
    entry = folded().entry("e1")
    assert [entry.fit_id(revision) for revision in (None, 99, 9, 8, 7)] == ["e1@9", "e1@9", "e1@9", "e1@8", "e1"]
    by_oldest = {oldest: [each.id for each in entry.fits(oldest)] for oldest in (0, 7, 8, 9)}
    assert by_oldest[0] == by_oldest[7] == ["e1", "e1@8", "e1@9"]
    assert (by_oldest[8], by_oldest[9]) == (["e1@8", "e1@9"], ["e1@9"])
    first, retuned, refitted = entry.fits(0)
    assert first == entry.edit
    for fit, known in ((retuned, RETUNED), (refitted, REFIT)):
        assert (fit.request, fit.learned, fit.tensors) == (REQUEST, known.learned, known.tensors)
    assert (entry.request, entry.learned, entry.report) == (REQUEST, REFIT.learned, {"exact": True})


def test_what_is_enrolled_is_kept_as_it_was_told() -> None:
    ledger = folded()
    revoked = next(event for event in SIXTH if isinstance(event, KeyRevoked))
    assert asdict(ledger.keys["k1"]) == {
        "id": "k1", "name": "ci", "role": Role.EDITOR, "secret_sha256": "ab" * 32, "created_at_s": 1.0,
        "revoked_at_s": revoked.at_s, "namespaces": (),
    }  # fmt: skip
    (hook,) = ledger.webhooks.values()
    assert asdict(hook) == {
        "id": "wh_1", "url": "https://a.example/b", "kinds": ("publish",), "namespaces": ("s",), "created_at_s": 19.0,
        "since": len(SIXTH) - 2,
    }  # fmt: skip


def test_live_edits_are_counted_in_each_namespace_and_in_all() -> None:
    ledger = folded()
    assert [ledger.live_count(name) for name in ("default", "other", "s", "nobody's", None)] == [1, 1, 1, 0, 3]


def test_edits_are_found_by_their_prompt_and_state() -> None:
    ledger = folded()
    prompt = f" {request().prompt}\n"
    assert ledger.with_prompt("default", prompt, State.LIVE) == ["e1"]
    assert ledger.with_prompt("default", prompt, State.LIVE, State.ROLLED_BACK) == ["e1", "e2"]
    assert ledger.with_prompt("other", prompt, State.LIVE) == ["e4"]
    assert ledger.with_prompt("other", "Who?", State.LIVE) == []


def test_an_outcome_is_known_under_its_key_to_the_same_person_alone() -> None:
    ledger = folded([committed(1), replace(committed(2, "e2"), origin=ORIGIN)])
    use = ledger.done_under(ORIGIN)
    assert use is not None
    assert (use.digest, use.revision, use.edit_ids) == ("d", 2, ("e2",))
    for other in (replace(ORIGIN, key_id="k2"), replace(ORIGIN, idempotency_key="twice"), Origin()):
        assert ledger.done_under(other) is None


@pytest.mark.parametrize(
    ("kind", "edit_id", "verb", "state"),
    [
        (EditsRolledBack, "e2", "roll back", "rolled_back"),
        (EditsDisabled, "e2", "disable", "rolled_back"),
        (EditsEnabled, "e1", "enable", "live"),
        (EditsEnabled, "e2", "enable", "rolled_back"),
        (EditRetuned, "e2", "retune", "rolled_back"),
        (EditRetuned, "e3", "retune", "expired"),
    ],
)
def test_what_a_state_forbids_is_told_with_the_state(kind: type[Event], edit_id: str, verb: str, state: str) -> None:
    with pytest.raises(StateConflict, match=f"Cannot {verb} the edit {edit_id}: it is {state.replace('_', ' ')}") as no:
        folded().check(kind, [edit_id])
    assert no.value.details == {"edit_id": edit_id, "state": state}


def test_what_a_state_allows_is_not_refused() -> None:
    ledger = folded()
    for kind in (EditsRolledBack, EditsDisabled, EditRetuned):
        ledger.check(kind, ["e1", "e4"])
    ledger.apply(EditsDisabled(revision=len(SIXTH) + 1, at_s=0.0, origin=Origin(), edit_ids=("e1",)))
    ledger.check(EditsEnabled, ["e1"])
    with pytest.raises(StateConflict, match="Cannot disable"):
        ledger.check(EditsDisabled, ["e1"])


EFFECTS = {"superseded": (), "revived": ()}


@pytest.mark.parametrize("head", range(len(SIXTH)))
def test_an_event_is_recorded_with_its_effects_on_edits_that_it_does_not_name(head: int) -> None:
    ledger, event = folded(SIXTH[:head]), SIXTH[head]
    before = deepcopy(all_of(ledger))
    bare = replace(event, **{name: none for name, none in EFFECTS.items() if hasattr(event, name)})
    assert ledger.as_recorded(bare) == event
    assert all_of(ledger) == before, "what would follow is worked out on copies"


def test_effects_reach_through_a_chain_of_corrections() -> None:
    ledger = folded([committed(1, "c"), committed(2, "b", supersedes=("c",)), committed(3, "a", supersedes=("b",))])
    assert ledger.as_recorded(rolled_back(4, "b")) == rolled_back(4, "b"), "the newest still covers the oldest"
    assert ledger.as_recorded(rolled_back(4, "a")) == replace(rolled_back(4, "a"), revived=("b",))
    assert ledger.as_recorded(rolled_back(4, "a", "b")) == replace(rolled_back(4, "a", "b"), revived=("c",))
    newest = committed(4, "d", supersedes=("a",))
    assert ledger.as_recorded(newest) == replace(newest, superseded=("a",))
    unknown = rolled_back(4, "nobody")
    assert ledger.as_recorded(unknown) is unknown, "to apply it raises why"
    assert set(ledger.with_superseded(["a"])) == {"a", "b", "c"}
    assert set(ledger.with_superseded(["b", "c"])) == {"b", "c"}
    assert ledger.with_superseded([]) == ()


def test_a_batchs_edits_take_effect_when_it_is_closed() -> None:
    ledger = folded([committed(1, "a"), staged(2, "B", "b", supersedes=("a",)), staged(3, "B", "c")])
    assert [len(ledger.entry(each).history) for each in "abc"] == [1, 1, 1], "a staged edit touches no other"
    assert ledger.last_change("default") == 1, "no request sees a staged edit"
    close = closed(4, "B", "b", "c")
    assert ledger.as_recorded(close) == replace(close, superseded=("a",))
    ledger.apply(close)
    assert [len(ledger.entry(each).history) for each in "abc"] == [2, 2, 2]
    assert [ledger.state(each) for each in "abc"] == [State.SUPERSEDED, State.LIVE, State.LIVE]
    assert all_of(ledger_of(4, list(records_of(ledger)))) == all_of(ledger)


def test_each_revision_shows_the_fits_that_acted_then_unless_they_were_switched_off() -> None:
    ledger = folded()
    standing = {
        4: ["e2"], 5: ["e2", "e3"], 6: ["e1", "e3"], 7: ["e1", "e3"], 8: ["e1@8", "e3"], 9: ["e1@9", "e3"],
        10: ["e2", "e3"], 11: ["e2"], 12: ["e2"], 13: ["e1@9"], 14: ["e1@9"], 15: ["e1@9"], None: ["e1@9"],
    }  # fmt: skip
    assert {at: ledger.unswitched_fits("default", at) for at in standing} == standing
    off = {12, 13, 14}
    assert {at: ledger.live_fits("default", at) for at in standing} == {
        at: [] if at in off else fits for at, fits in standing.items()
    }
    assert ledger.live_fits("s") == ["e6"]
    assert ledger.live_fits("nobody's") == []


def test_the_newest_change_of_a_namespace_is_known_up_to_any_revision() -> None:
    ledger = folded()
    newest = [ledger.last_change("default", at) for at in (None, 99, 15, 14, 3)]
    assert newest == [15, 15, 15, 14, 3]
    assert (ledger.last_change("other"), ledger.last_change("nobody's")) == (20, 0)
    ledger.apply(switched(len(SIXTH) + 1, None, False))
    assert ledger.last_change("nobody's") == len(SIXTH) + 1, "what is of all of them is of each"


def test_what_cannot_be_refitted_or_switched_is_refused() -> None:
    ledger = folded()
    with pytest.raises(StateConflict, match="Cannot refit the edit e2: it is rolled back"):
        ledger.apply(refitted(ledger.revision + 1, "e1", "e2"))
    with pytest.raises(StateConflict, match="Cannot retune the edit e2: it is rolled back"):
        ledger.apply(retuned(ledger.revision + 1, "e2"))
    assert ledger.entry("e1").refits == folded().entry("e1").refits
    with pytest.raises(StateConflict, match="of this namespace are switched on already"):
        ledger.check_switch("default", True)
    ledger.check_switch("default", False)
    assert ledger.probes == {"default": ("The capital of Peru is",)}
