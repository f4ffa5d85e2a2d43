"""The edits that the index compares, and their order, with every angle and logit given."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from app.domain.errors import IncompatibleEdit
from app.domain.scope import ScopeRequest, Traffic
from app.scope.decision import EncodedQuestion
from app.scope.doubt import Doubt
from app.scope.index import (
    ABOUT_THE_SAME,
    FALSE_HITS,
    MOST_NEAR,
    OF_ONE,
    PLAUSIBLE,
    SHORTLIST,
    WEIGHED,
    ScopeIndex,
    widen,
)
from app.scope.record import ScopeRecord, read_record
from app.scope.scope_learner import MOST_COUNTER
from tests.scope.stand_in import StandIns, turned

ASKED = "whose is the lamp shop"


def load(index: ScopeIndex, edit_id: str, *keys: str, **more: Any) -> None:
    index.load(edit_id, ScopeRecord(keys=list(keys), bound=0.5, **more).model_dump())


def ranked(index: ScopeIndex, *edit_ids: str, asked: str = ASKED) -> list[str]:
    found = index.ranked(index.question((asked,)), index.compile("default", edit_ids))
    return [match.edit_id for match in found]


# -- which edits are compared


def test_the_likeliest_and_the_nearest_edits_are_compared_the_likeliest_first() -> None:
    names = [f"e{at}" for at in range(2 * WEIGHED + 2)]
    angles = {name: 10.0 + at for at, name in enumerate(names)}
    logits = {(ASKED, name): float(at) for at, name in enumerate(names)}
    made = StandIns({ASKED: 0, "far from it": 60, **angles}, {**logits, (ASKED, "far from it"): -9.0})
    index = made.index()
    for name in names:
        load(index, name, name, *(["far from it"] if name == "e5" else []))
    assert ranked(index, *names) == ["e7", "e6", "e5", "e2", "e1", "e0"], "an edit is as likely as its likeliest key"
    assert ranked(index, "e3", "e1") == ["e3", "e1"], "what an edition does not see is not compared"
    assert ranked(index) == []
    assert index.nearest(index.question((ASKED,)), index.compile("default", [])) is None
    match = index.nearest(index.question((ASKED,)), index.compile("default", names))
    assert match is not None
    assert (match.edit_id, match.margin) == ("e7", 7)
    assert match.why.startswith("nearest to 'e7': the same with 1.00, bound 0.50")
    assert match.signals["cosine"].value == round(math.cos(math.radians(17)), 4)
    assert match.signals["named"].value == 1, "an edit without names asks for none"


def test_the_newest_of_equal_edits_comes_first_and_is_among_the_compared() -> None:
    names = [f"e{at}" for at in range(WEIGHED + 2)]
    index = StandIns({ASKED: 0, "k": 10}).index()
    for name in names:
        load(index, name, "k")
    assert ranked(index, *names) == names[: -WEIGHED - 1 : -1]
    assert ranked(index, *reversed(names)) == names[:WEIGHED]


def test_margins_that_differ_by_rounding_only_are_equal() -> None:
    index = StandIns({ASKED: 0, "a": 10, "b": 10}, {(ASKED, "a"): 2.0003, (ASKED, "b"): 2.0}).index()
    load(index, "old", "a")
    load(index, "new", "b")
    assert ranked(index, "old", "new") == ["new", "old"]
    assert ranked(index, "new", "old") == ["old", "new"]
    made = StandIns({ASKED: 0, "a": 10, "b": 10}, {(ASKED, "a"): 2.01, (ASKED, "b"): 2.0}).index()
    load(made, "old", "a")
    load(made, "new", "b")
    assert ranked(made, "old", "new") == ["old", "new"]


def test_an_edit_is_compared_by_its_best_key() -> None:
    """The scorer reads three keys of an edit at most."""
    angles = {f"k{at}": 10.0 + at for at in range(OF_ONE + 1)}
    made = StandIns({ASKED: 0, **angles, "other": 30}, {(ASKED, key): -1.0 for key in angles})
    made.scorer.logits.update({(ASKED, "k1"): 4.0, (ASKED, "other"): 3.0})
    index = made.index()
    load(index, "many", *angles)
    load(index, "one", "other")
    assert ranked(index, "many", "one") == ["many", "one"]


def test_one_edits_keys_take_few_places_of_the_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = {f"k{at}": 1.0 + 0.1 * at for at in range(2 * SHORTLIST)}
    made = StandIns({ASKED: 0, **crowd, "other": 60})
    index = made.index()
    load(index, "crowd", *crowd)
    load(index, "one", "other")
    scores, read = made.decider.scores, list[list[str]]()

    def noted(question: EncodedQuestion, keys: Sequence[str]) -> Any:
        read.append(list(keys))
        return scores(question, keys)

    monkeypatch.setattr(made.decider, "scores", noted)
    assert set(ranked(index, "crowd", "one")) == {"crowd", "one"}
    assert read[0] == [*list(crowd)[:OF_ONE], "other"]


def test_the_shortlist_ends_after_the_nearest_keys() -> None:
    names = [f"e{at}" for at in range(SHORTLIST + 1)]
    made = StandIns({ASKED: 0} | {name: 10.0 + at for at, name in enumerate(names)})
    made.scorer.logits.update({(ASKED, names[-1]): 99.0, (ASKED, names[-2]): 50.0})
    index = made.index()
    for name in names:
        load(index, name, name)
    found = ranked(index, *names)
    assert found[0] == names[-2]
    assert names[-1] not in found


def test_far_keys_are_not_compared_unless_the_edits_name_is_said() -> None:
    far = math.degrees(math.acos(PLAUSIBLE)) + 1
    made = StandIns({"who runs lumen": 0, "near": far - 2, "far": far, "named": far, "named too": far})
    index = made.index()
    load(index, "near", "near")
    load(index, "far", "far")
    load(index, "named", "named", names=[["lumen"]])
    load(index, "unseen", "named too", names=[["lumen"]])
    assert set(ranked(index, "near", "far", "named", asked="who runs lumen")) == {"near", "named"}
    assert ranked(index, "far", asked="who runs lumen") == []
    found = index.ranked(index.question(("who runs lumen",)), index.compile("default", ["near", "named"]))
    assert [match.signals["named"].value for match in found] == [1, 1]
    assert index.ranked(index.question(("who runs it",)), index.compile("default", ["named"])) == []


def test_named_edits_take_places_of_their_own_the_nearest_first() -> None:
    near = [f"n{at}" for at in range(SHORTLIST)]
    named = [f"m{at}" for at in range(SHORTLIST + 1)]
    angles = {key: 10.0 + at for at, key in enumerate(near)} | {key: 120.0 - at for at, key in enumerate(named)}
    made = StandIns({"who runs lumen": 0, **angles})
    made.scorer.logits.update({("who runs lumen", "m0"): 99.0, ("who runs lumen", "m1"): 98.0})
    index = made.index()
    for key in near:
        load(index, key, key)
    for key in named:
        load(index, key, key, names=[["lumen"]])
    found = ranked(index, *near, *named, asked="who runs lumen")
    assert found[0] == "m1"
    assert "m0" not in found


def test_an_edit_that_is_near_takes_no_place_for_its_name() -> None:
    keys = {f"k{at}": 10.0 + at for at in range(OF_ONE)} | {"late": 40.0}
    made = StandIns({"who runs lumen": 0, **keys}, {("who runs lumen", "late"): 99.0})
    index = made.index()
    load(index, "a", *keys, names=[["lumen"]])
    load(index, "b", "far", names=[["lumen"]])
    match, *_ = index.ranked(index.question(("who runs lumen",)), index.compile("default", ["a", "b"]))
    assert match.edit_id == "a"


def test_an_unnamed_edit_is_compared_as_one() -> None:
    made = StandIns({"who runs it": 0, "k": 10})
    index = made.index()
    load(index, "a", "k", names=[["lumen"]], given=True)
    (match,) = index.ranked(index.question(("who runs it",)), index.compile("default", ["a"]))
    assert (match.signals["named"].value, match.signals["named"].bound) == (0, 1)
    assert made.match_model.seen[0].unnamed == 1


def test_a_question_is_seen_beside_the_background_of_its_edition() -> None:
    made = StandIns({ASKED: 0, "k": 10, "asked": 30})
    index = made.index()
    load(index, "a", "k")
    before = index.compile("default", ["a"])
    index.hear(lambda namespace: Traffic(recent=("asked",) if namespace == "busy" else ()))
    for part in (before, index.compile("busy", ["a"]), index.compile("default", ["a"])):
        index.ranked(index.question((ASKED,)), part)
    assert [round(seen.contrast, 4) for seen in made.match_model.seen] == [0, round(math.cos(math.radians(30)), 4), 0]


# -- rows


def test_an_edit_that_is_given_back_meanwhile_is_none_of_the_editions() -> None:
    index = StandIns({ASKED: 0, "k": 10}).index()
    load(index, "a", "k")
    part = index.compile("default", ["a"])
    index.drop("a")
    load(index, "b", "k")
    assert index.ranked(index.question((ASKED,)), part) == []
    assert ("a" in index, "b" in index) == (False, True)
    assert index.compile("default", ["a", "b"]).order == {1: 0}


def test_an_edit_is_loaded_once() -> None:
    index = StandIns({}).index()
    load(index, "a", "k")
    with pytest.raises(AssertionError, match="a is loaded already"):
        load(index, "a", "k")


def test_a_record_that_cannot_be_read_is_refused_by_the_edits_name() -> None:
    with pytest.raises(IncompatibleEdit, match="scope of the edit a cannot be read"):
        StandIns({}).index().load("a", {"keys": 7})


def test_what_is_read_ahead_is_encoded_together_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = StandIns({})
    index, together = made.index(), list[list[str]]()
    monkeypatch.setattr(made.vectors, "of", lambda texts: together.append(list(texts)))
    index.read_ahead([ScopeRecord(keys=["b", "a"], made=["c"], bound=0.5).model_dump(), {"keys": 7}])
    assert together == [["a", "b", "c"]]


def test_held_bytes_are_those_of_the_keys() -> None:
    index = StandIns({}).index()
    assert index.held_bytes == 0
    load(index, "a", "k")
    assert index.held_bytes == 1024 * (3 * 4 + 8)


def test_a_doubt_is_about_the_edits_keys_and_counter_examples() -> None:
    index = StandIns({}).index()
    load(index, "a", "k", counter=["not k"])
    assert index.doubt(index.question((ASKED,)), "a") == Doubt(ASKED, ("k",), ("not k",))


# -- texts


def test_vectors_names_and_near_misses_of_a_question() -> None:
    made = StandIns({"a": 0, "b": 90, "Lumen": 0, "Ordo": 40, "Tessel": 10})
    index = made.index(["Ordo", "Tessel", "Lux"])
    assert torch.equal(index.vectors(["b", "a"]), turned(90, 0))
    assert index.name_in(("What is Ada Quill's age?",)) == "Ada Quill"
    assert index.name_in(("what is it?",)) is None
    assert index.name_in(("Who founded Lumen?", "Ada Quill.", "Why?")) == "Lumen"
    misses = index.near_misses(("Hello.", "Good day.", " Who founded Lumen? "))
    subjects = [miss.text for miss in misses if miss.kind == "another subject"]
    assert subjects == ["Who founded Tessel?", "Who founded Ordo?"], "those most like it"
    misses = index.near_misses(("Who founded Lumen?",), besides=["Tessel is another name of it"])
    subjects = [miss.text for miss in misses if miss.kind == "another subject"]
    assert subjects == ["Who founded Ordo?", "Who founded Lux?"]
    assert [miss for miss in index.near_misses(("who founded it?",)) if miss.kind == "another subject"] == []


def test_a_scope_is_learned_beside_the_loaded_edits_as_wide_as_the_request_says() -> None:
    made = StandIns({ASKED: 0, "a": 30}, {("a", ASKED): 1.0}, ["a"])
    index = made.index(false_hits=32.0)
    assert index.learn(ScopeRequest(keys=((ASKED,),), widen=3.0)).widened == 3.0
    assert index.learn(ScopeRequest(keys=((ASKED,),), widen=3.0), 2.0).widened == 2.0
    assert index.learn(ScopeRequest(keys=((ASKED,),))).bound == 0.5, "one of one may be answered"
    for at in range(33):
        load(index, f"e{at}", f"key {at}")
    assert index.learn(ScopeRequest(keys=((ASKED,),))).bound > 0.5, "33 edits share what 32 may answer"


def test_of_many_counter_examples_an_index_keeps_the_nearest() -> None:
    counter = tuple((f"not {at}",) for at in range(MOST_COUNTER + 2))
    index = StandIns({ASKED: 0.0} | {text: 80.0 - at for at, (text,) in enumerate(counter)}).index()
    found = index.learn(ScopeRequest(keys=((ASKED,),), counter=counter))
    assert found.counter == [text for (text,) in counter[2:]]


def test_names_for_near_misses_are_those_of_the_index() -> None:
    made = StandIns({}, {("Who founded Ordo?", "Who founded Lumen?"): 9.0})
    made.index(["Ordo"]).learn(ScopeRequest(keys=(("Who founded Lumen?",),)))
    assert "Who founded Ordo?" in made.encoder.encoded


def test_an_index_lets_edits_answer_the_stated_share_of_other_questions() -> None:
    made = StandIns({ASKED: 0} | {f"q{at}": 30.0 for at in range(4)}, {}, [f"q{at}" for at in range(4)])
    index = ScopeIndex(made.encoder, made.decider, made.closed, made.vectors, made.background)
    assert index.learn(ScopeRequest(keys=((ASKED,),))).rate == 0.2
    assert FALSE_HITS == 0.002


# -- competing edits


def test_edits_may_be_about_the_same_by_name_or_by_nearness() -> None:
    edge = math.degrees(math.acos(ABOUT_THE_SAME))
    index = StandIns({"who runs lumen": 0, "near": edge - 1, "far": edge + 1, "named": 120}).index()
    request = ScopeRequest(keys=(("who runs lumen",), ("far",)))
    held = ["far", "named", "near"]
    assert index.near(request, held) == [], "none is loaded"
    load(index, "far", "far")
    load(index, "named", "named", names=[["lumen"]])
    load(index, "near", "near")
    assert index.near(request, held) == ["named", "near"], "oldest first"
    assert index.near(request, ["far", "near"]) == ["near"]
    for at in range(MOST_NEAR + 1):
        load(index, f"e{at}", f"e{at}")
    made = StandIns({"q": 0} | {f"e{at}": 1.0 + at for at in range(MOST_NEAR + 1)}).index()
    for at in range(MOST_NEAR + 1):
        load(made, f"e{at}", f"e{at}")
    every = [f"e{at}" for at in range(MOST_NEAR + 1)]
    assert made.near(ScopeRequest(keys=(("q",),)), every) == every[:MOST_NEAR]


# -- records


def test_widening_multiplies_what_a_record_has() -> None:
    record = ScopeRecord(keys=["k"], bound=0.5, widened=3.0).model_dump()
    assert widen(record, 2.0) == {**record, "widened": 6.0}
    assert widen({"keys": ["k"]}, 2.0) == {"keys": ["k"], "widened": 2.0}


def test_a_record_is_read_as_it_was_written() -> None:
    record = ScopeRecord(keys=["k"], bound=0.5)
    assert read_record("a", record.model_dump()) == record
