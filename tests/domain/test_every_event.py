"""A ledger of every kind of event: what it knows of each, and that a snapshot leaves nothing of it out."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from app.domain.edit import State
from app.domain.errors import StateConflict
from app.domain.events import EditRetuned, EditsDisabled, EditsEnabled, EditsRolledBack, Event, KeyRevoked, Origin
from app.domain.keys import Role
from app.domain.ledger import Ledger
from app.domain.snapshot import RefitRecord, RetuneRecord, ledger_of, records_of
from tests.domain.samples import committed, request
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
    with pytest.raises(ValueError, match="a change of e1, which is not before it"):
        ledger_of(1, [retune])
    refit = next(record for record in records if isinstance(record, RefitRecord))
    with pytest.raises(ValueError, match="a refit of e1, which is not before it"):
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
