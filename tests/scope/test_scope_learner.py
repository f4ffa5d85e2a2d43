"""The scope learned from a request, with every angle and logit given: texts, names, near misses and the bound."""

import math
from typing import Any

import pytest

from app.domain.scope import ScopeRequest, Traffic
from app.scope.decision import share
from app.scope.other_names import OtherNames
from app.scope.record import ScopeRecord
from app.scope.scope_learner import BOUND, CALIBRATED_ON, CLEAR, FEW_EDITS, MAY_BE_NEAR, MOST_COUNTER, ScopeLearner
from tests.scope.stand_in import StandIns

QUESTION = "who runs the lamp shop"
"""It names nobody, so that only its bound and its near misses decide."""


def learned(
    made: StandIns, request: ScopeRequest, *, beside: int = 0, false_hits: float = 0.0, others: tuple[str, ...] = ()
) -> ScopeRecord:
    learner = ScopeLearner(
        made.encoder, made.decider, made.closed, made.vectors, made.background, OtherNames(made.vectors, others),
        lambda namespace: false_hits if namespace == "default" else 1e9,
    )  # fmt: skip
    return learner.learn(request, widened=1.5, edit_count=beside)


def asking(*keys: str, **more: Any) -> ScopeRequest:
    for name in ("made", "counter", "misses"):
        more[name] = tuple((text,) for text in more.get(name, ()))
    return ScopeRequest(keys=tuple((key,) for key in keys), **more)


# -- texts and names


def test_texts_are_the_fullest_reading_of_each_prompt_once() -> None:
    found = learned(
        StandIns({}),
        asking(f" Hello! {QUESTION}? ", "b?", "b?", made=("c?", "c?"), counter=("d?", "d?"), misses=("e?", "e?")),
    )
    assert found == ScopeRecord(
        keys=[f"Hello! {QUESTION}?", "b?"], made=["c?"], counter=["d?"], misses=["e?"], bound=BOUND, widened=1.5,
        encoder="angles",
    )  # fmt: skip


def test_a_prompt_that_is_a_conversation_is_read_with_what_it_points_back_to() -> None:
    def after(question: str) -> tuple[tuple[str, ...], ...]:
        return ((question, "Ada Quill.", "Why?"),)

    request = ScopeRequest(keys=after("a?"), made=after("b?"), counter=after("c?"), misses=after("d?"))
    found = learned(StandIns({}), request)
    assert [found.keys, found.made, found.counter, found.misses] == [[f"{name}? Ada Quill. Why?"] for name in "abcd"]


def test_aliases_are_asked_about_in_place_of_the_subject() -> None:
    made = StandIns({})
    request = asking("Who founded Lumen?", made=("x?",), subject="Lumen", aliases=("the lamp works", "LC"))
    found = learned(made, request)
    assert found.made == ["x?", "Who founded the lamp works?", "Who founded LC?"]
    assert (found.names, found.given) == ([["lumen"], ["the", "lamp", "work"], ["lc"]], True)
    absent = learned(made, asking("Who founded it?", subject="Lumen", aliases=("LC",)))
    assert absent.made == []
    assert absent.names == [["lumen"], ["lc"]]
    nobody = learned(made, asking("Who founded it?", aliases=("LC",)))
    assert (nobody.made, nobody.names, nobody.given) == ([], [], False)


def test_names_that_are_found_are_those_of_the_question_and_of_paraphrases_that_say_none_of_them() -> None:
    def names(*keys: str) -> list[list[str]]:
        return learned(StandIns({}), asking(*keys)).names

    assert names("Who founded Lumen?", "Did Ada found Lumen?", "Did Max found Tessel?") == [
        ["lumen"],
        ["max"],
        ["tessel"],
    ]
    assert names("Who founded Lumen?", "Who founded the Lumens of Ulm?") == [["lumen"]]
    assert names("who founded it?", "Who founded Tessel?") == [], "what the question does not name need not be named"
    assert names("Who is Ada?", "Who is the Adams?") == [["ada"], ["adam"]], "a name is a word, not a part of one"


def test_of_many_counter_examples_the_nearest_are_kept_in_their_order() -> None:
    counter = tuple(f"not {at}" for at in range(MOST_COUNTER + 2))
    made = StandIns({QUESTION: 0.0} | {text: 80.0 - at for at, text in enumerate(counter)})
    assert learned(made, asking(QUESTION, counter=counter)).counter == list(counter[2:])
    assert learned(made, asking(QUESTION, counter=counter[:-2])).counter == list(counter[:-2])


# -- near misses


def test_near_misses_that_the_edit_would_answer_narrow_it() -> None:
    """`Who founded Tessel?` is none of them, as it names somebody else."""
    question = "Who founded Lumen?"
    miss = "Who founded Lumen in 1990?"
    logits = {(miss, question): -0.4, ("Who founded Tessel?", question): 9.0, ("e?", question): -5.0}
    made = StandIns({}, logits)
    found = learned(made, asking(question, misses=("e?",)), others=("Tessel",))
    assert found.misses == ["e?", miss]
    assert {"Who founded Tessel?", miss} <= set(made.encoder.encoded)
    assert all((seen.contrast, seen.traffic) == (0, False) for seen in made.match_model.seen)
    made.scorer.logits[miss, question] = -0.41  # below the odds of 1 to 1.5, by which the request widens it
    assert learned(made, asking(question)).misses == []


def test_a_near_miss_that_is_a_paraphrase_or_given_is_not_added() -> None:
    question, miss = "Who founded Lumen?", "Who founded Lumen in 1990?"
    made = StandIns({}, {(miss, question): 9.0, (miss, miss): 9.0})
    assert learned(made, asking(question, miss)).misses == []
    assert learned(made, asking(question, made=(miss,))).misses == []
    assert learned(made, asking(question, misses=(miss,))).misses == [miss]


def test_names_to_ask_about_are_like_the_name_and_none_of_the_edits_own() -> None:
    """Its own names are those in its texts, in the order in which the question says them."""
    made = StandIns({"Lumen": 0, "Tessel": 50, "Ordo": 10, "Velt": 30, "Lux": 5, "Far": 120})
    made.scorer.logits.update(
        {(f"who founded {name}?", "who founded Lumen?"): 9.0 for name in ("Tessel", "Ordo", "Velt", "Lux")}
    )
    request = asking("who founded Lumen?", "who set up Lux?", subject="Lumen", aliases=("Velt",))
    learned(made, request, others=("Far", "Tessel", "Ordo", "Velt", "Lux", "Lumen"))
    asked = {text for text in made.encoder.encoded if text.startswith("who founded")}
    assert {"who founded Ordo?", "who founded Tessel?"} <= asked
    assert not {"who founded Lux?", "who founded Far?"} & asked


# -- the bound


def calibrated(
    angles: dict[str, float], logits: dict[str, float], false_hits: float = 0.0, beside: int = 0, **more: Any
) -> tuple[ScopeRecord, StandIns]:
    made = StandIns({QUESTION: 0.0, **angles}, {(text, QUESTION): at for text, at in logits.items()}, tuple(angles))
    return learned(made, asking(QUESTION, **more), false_hits=false_hits, beside=beside), made


def test_without_other_questions_the_bound_is_the_default() -> None:
    found, _ = calibrated({}, {})
    assert (found.bound, found.rate, found.rests_on, found.widened) == (BOUND, 0, 0, 1.5)


def test_the_bound_exceeds_the_questions_that_it_must_keep_out() -> None:
    found, made = calibrated({"a": 30, "b": 40, "c": 50, "d": 85}, {"a": 1.0, "b": 3.0, "c": -2.0, "d": 9.0})
    assert found.bound == pytest.approx(share(3.0 + CLEAR)), "d lies too far to be asked about"
    assert (found.rate, found.rests_on) == (0.2, 4)
    (first, *_) = made.match_model.seen[-3:]
    asked, key = (made.encoder.vectors([text]) for text in ("a", QUESTION))
    assert first.contrast == pytest.approx(made.background.of("default").near(asked).contrast(key), abs=1e-6)


def test_a_bound_that_keeps_them_out_already_is_kept() -> None:
    found, _ = calibrated({"a": 30, "b": 40}, {"a": -1.0, "b": -0.01})
    assert (found.bound, found.rate, found.rests_on) == (pytest.approx(BOUND), pytest.approx(1 / 3, abs=1e-6), 2)
    found, _ = calibrated({"a": 30}, {"a": 0.0})
    assert found.bound == pytest.approx(share(CLEAR)), "a margin of 0 is a hit"


@pytest.mark.parametrize(("may", "bound", "hits"), [(0, 4.0, 0), (1, 3.0, 1), (2, 2.0, 2), (3, None, 3), (9, None, 3)])
def test_as_many_may_be_answered_as_are_the_edits_share(may: int, bound: float | None, hits: int) -> None:
    """The share is that of all edits together, which are taken to be `FEW_EDITS`, or as many as there are."""
    angles = {"a": 30.0, "b": 32.0, "c": 34.0, "d": 36.0}
    logits = {"a": 2.0, "b": 4.0, "c": 3.0, "d": -1.0}
    for beside in (0, FEW_EDITS, 2 * FEW_EDITS):
        edits = max(FEW_EDITS, beside)
        found, _ = calibrated(angles, logits, false_hits=may * edits / 4 + 0.01, beside=beside)
        assert found.bound == pytest.approx(BOUND if bound is None else share(bound + CLEAR))
        assert found.rate == pytest.approx((1 + hits) / 5)


def test_the_same_words_and_far_questions_do_not_count() -> None:
    nearest = math.degrees(math.acos(0.98))
    edge = math.degrees(math.acos(MAY_BE_NEAR))
    found, _ = calibrated({"a": nearest - 1, "b": edge + 1}, {"a": 9.0, "b": 9.0})
    assert found.bound == pytest.approx(BOUND)
    found, _ = calibrated({"a": nearest + 1}, {"a": 9.0})
    assert found.bound == pytest.approx(share(9.0 + CLEAR))
    found, _ = calibrated({"b": edge - 1}, {"b": 9.0})
    assert found.bound == pytest.approx(share(9.0 + CLEAR))


def test_of_many_questions_the_nearest_are_asked() -> None:
    angles = {f"q{at}": 15.0 + at for at in range(CALIBRATED_ON + 1)}
    last, farthest = list(angles)[-2:]
    found, _ = calibrated(angles, dict.fromkeys(angles, -1.0) | {farthest: 9.0})
    assert found.bound == pytest.approx(BOUND)
    found, _ = calibrated(angles, dict.fromkeys(angles, -1.0) | {last: 9.0})
    assert found.bound == pytest.approx(share(9.0 + CLEAR))
    assert found.rests_on == CALIBRATED_ON + 1


def test_a_question_is_near_if_it_is_near_to_any_key() -> None:
    made = StandIns({QUESTION: 0, "b?": 90, "asked": 60}, {("asked", "b?"): 5.0, ("asked", QUESTION): -5.0}, ["asked"])
    assert learned(made, asking(QUESTION, made=("b?",))).bound == pytest.approx(share(5.0 + CLEAR))


def test_a_bound_is_calibrated_on_what_no_edit_is_to_answer_and_on_no_mere_traffic() -> None:
    made = StandIns({QUESTION: 0, "other": 30, "asked": 32}, {("other", QUESTION): 1.0, ("asked", QUESTION): 9.0})
    traffic = dict.fromkeys(("default", "elsewhere"), Traffic(others=("other",), recent=("asked",)))
    made.background.traffic = traffic.__getitem__
    found = learned(made, asking(QUESTION))
    assert found.bound == pytest.approx(share(1.0 + CLEAR))
    assert found.rests_on == 1
    assert learned(made, asking(QUESTION, namespace="elsewhere")).bound == pytest.approx(BOUND), "its share is another"


def test_what_an_operator_widens_comes_on_top_of_the_bound() -> None:
    made = StandIns({QUESTION: 0, "a": 30}, {("a", QUESTION): 0.2}, ["a"])
    found = learned(made, asking(QUESTION))
    assert (found.bound, found.widened) == (pytest.approx(share(0.2 + CLEAR)), 1.5)


def test_a_question_that_says_none_of_the_edits_names_is_compared_as_such() -> None:
    question = "Who founded Lumen?"
    others = {"who founded lumen at last?": 30, "who founded it?": 32}
    made = StandIns({question: 0, **others}, {}, list(others))
    learned(made, asking(question))
    assert [seen.unnamed for seen in made.match_model.seen[-2:]] == [0, 1]
