"""The decision on one edit, with every angle and logit given: what is compared, what vetoes, and what is said of it."""

import math
from typing import Any

import pytest
import torch

from app.domain.generation import Signal
from app.scope.background import NearbyBackground
from app.scope.decision import MOST_COUNTERS, MOST_KEYS, NEARER, SURE, VETO, Assessment, bare, logit, share
from app.scope.match_model import MatchFeatures
from app.scope.record import ScopeRecord
from app.scope.scope_learner import ALONE
from tests.scope.stand_in import STEEP, StandIns, turned

KEY, ASKED = "who runs the lamp shop", "whose is the lamp shop"
FIGURES = MatchFeatures.of(
    torch.tensor([1.0]), torch.tensor([0.87654]), torch.zeros(0), torch.zeros(0),
    contrast=0.123456, traffic=False, cohesion=0.0, unnamed=True,
)  # fmt: skip


def record(*keys: str, **more: Any) -> ScopeRecord:
    return ScopeRecord(keys=list(keys), bound=0.5, **more)


def weighed(
    made: StandIns, question: str, scope: ScopeRecord, *, named: bool = True, background: NearbyBackground = ALONE
) -> Assessment:
    decider = made.decider
    return decider.weigh(decider.question((question,)), decider.row("a", scope), background, named=named)


# -- figures and words


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Who  founded\tLumen?", "who founded lumen"),
        (" Who founded Lumen ?!. ", "who founded lumen"),
        ("東京の人口は？", "東京の人口は"),
        ("東京です。！", "東京です"),
        ("Straße", "strasse"),
        ("X or Y", "x or y"),
        (".5 of what", ".5 of what"),
    ],
)
def test_texts_are_the_same_but_for_case_blanks_and_closing_punctuation(text: str, same: str) -> None:
    assert bare(text) == same


def test_logits_and_probabilities_are_inverse_and_never_overflow() -> None:
    assert logit(0.5) == 0
    assert logit(0.8) == pytest.approx(math.log(4))
    assert [share(logit(chance)) for chance in (0.02, 0.5, 0.98)] == pytest.approx([0.02, 0.5, 0.98])
    assert share(1e6) == share(30.0) < 1
    assert share(-1e6) == share(-30.0) == pytest.approx(9.4e-14, rel=0.01)
    assert share(29.9) < share(30.0)


def test_what_is_said_of_a_decision() -> None:
    plain = Assessment(1.3, "K?", FIGURES, None)
    assert plain.margin(0.5) == pytest.approx(0.8)
    assert plain.why(0.5) == "nearest to 'K?': the same with 0.79, bound 0.62"
    assert plain.signals(0.5, given=True) == {
        "same": Signal(0.7858, 0.6225),
        "cosine": Signal(0.8765, 0.1235),
        "named": Signal(0.0, 1.0),
    }
    assert plain.signals(0.5, given=False)["named"] == Signal(0.0, 0.0)


def test_a_veto_leaves_a_margin_of_minus_one_at_most() -> None:
    vetoed = Assessment(1.25, "K?", FIGURES, "it says so")
    assert vetoed.margin(0.5) == -1.0
    assert vetoed.margin(3.25) == -3.0
    assert vetoed.why(0.5).endswith("bound 0.62; but it says so")


def test_an_edits_texts_are_its_keys_and_generated_ones_once_and_its_bound_is_widened() -> None:
    row = StandIns({}).decider.row("a", record("one", "two", made=["two", "three"], widened=4.0))
    assert row.texts == ("one", "two", "three")
    assert row.bound == pytest.approx(-math.log(4))
    assert (row.edit_id, row.free) == ("a", frozenset())


# -- what is compared


def test_a_text_is_compared_with_the_reading_nearest_to_it() -> None:
    whole, last = "Good day! Who runs it?", "Who runs it?"
    made = StandIns(
        {whole: 0, last: 90, "near the whole": 20, "near the last": 60},
        {
            (whole, "near the whole"): 1,
            (last, "near the whole"): 2,
            (whole, "near the last"): 3,
            (last, "near the last"): 4,
        },
    )
    question = made.decider.question((whole,))
    assert question.parsed.texts == (whole, last)
    assert torch.equal(question.queries, turned(0, 90))
    assert list(question.words) == ["good", "day", "who", "run", "it"]
    logits, cosines = made.decider.scores(question, ["near the whole", "near the last"])
    assert logits.tolist() == [1, 4]
    assert cosines.tolist() == pytest.approx([math.cos(math.radians(20)), math.cos(math.radians(30))])


def test_features_are_those_of_the_keys_and_counter_examples() -> None:
    made = StandIns(
        {ASKED: 0, "one": 40, "two": 10, "not this": 60, "nor this": 30},
        {(ASKED, "one"): 1, (ASKED, "two"): 3, (ASKED, "not this"): -4, (ASKED, "nor this"): -2, ("one", "two"): 5,
         ("two", "one"): 7},
    )  # fmt: skip
    beside = NearbyBackground(torch.tensor([0.9, 0.8, 0.1]), turned(25, 50, 80), traffic=True)
    found = weighed(made, ASKED, record("one", made=["two"], counter=["not this", "nor this"]), background=beside)
    (seen,) = made.match_model.seen
    cosine = [math.cos(math.radians(angle)) for angle in (40, 10, 60, 30)]
    assert (seen.prompt, seen.best, seen.mean) == (1, 3, 2)
    assert [seen.prompt_cosine, seen.best_cosine, seen.mean_cosine] == pytest.approx(
        [cosine[0], cosine[1], (cosine[0] + cosine[1]) / 2], abs=1e-6
    )
    assert (seen.counter, seen.counters, seen.paraphrases) == (-2, 2, 1)
    assert [seen.counter_cosine, seen.counter_mean_cosine] == pytest.approx(
        [cosine[3], (cosine[2] + cosine[3]) / 2], abs=1e-6
    )
    assert seen.contrast == pytest.approx(beside.contrast(turned(40, 10)))
    assert (seen.traffic, seen.unnamed, seen.cohesion) == (True, 0, 6)
    assert (found.score, found.key, found.against, found.figures) == (3, "two", None, seen)


def test_one_key_has_no_cohesion_and_an_unnamed_edit_is_marked() -> None:
    made = StandIns({ASKED: 0, KEY: 10})
    weighed(made, ASKED, record(KEY), named=False)
    assert (made.match_model.seen[0].cohesion, made.match_model.seen[0].unnamed) == (0, 1)
    assert made.match_model.seen[0].traffic is False


def test_of_many_keys_the_prompt_and_the_nearest_others_are_compared_in_their_order() -> None:
    keys = [f"key {at}" for at in range(12)]
    angles = {ASKED: 0.0} | {key: 60.0 - at for at, key in enumerate(keys)}
    made = StandIns(angles, {(ASKED, "key 0"): -1.0, (ASKED, "key 4"): 9.0})
    found = weighed(made, ASKED, record(*keys))
    (seen,) = made.match_model.seen
    assert (seen.paraphrases, seen.prompt) == (MOST_KEYS - 1, -1.0)
    assert seen.best == pytest.approx(STEEP * (2 * math.cos(math.radians(49)) - 1), abs=1e-4), "key 4 is none of them"
    assert found.key == "key 11"
    assert seen.mean_cosine == pytest.approx(
        sum(math.cos(math.radians(angle)) for angle in (60, 49, 50, 51, 52, 53, 54, 55)) / 8, abs=1e-6
    )


def test_as_many_keys_as_are_compared_are_compared_all() -> None:
    keys = [f"key {at}" for at in range(MOST_KEYS)]
    made = StandIns({ASKED: 0.0} | {key: 60.0 - at for at, key in enumerate(keys)})
    weighed(made, ASKED, record(*keys))
    assert made.match_model.seen[0].paraphrases == MOST_KEYS - 1


def test_cohesion_is_that_of_the_first_keys() -> None:
    keys = [f"key {at}" for at in range(MOST_KEYS + 1)]
    logits = {(one, other): -3.0 for one in keys for other in keys} | {("key 0", "key 8"): 50.0}
    made = StandIns({ASKED: 0.0}, logits)
    weighed(made, ASKED, record(*keys))
    assert made.match_model.seen[0].cohesion == -3.0


def test_of_many_counter_examples_the_nearest_are_compared() -> None:
    counter = [f"not {at}" for at in range(MOST_COUNTERS + 2)]
    angles = {ASKED: 0.0, KEY: 10.0} | {text: 80.0 - at for at, text in enumerate(counter)}
    made = StandIns(angles, {(ASKED, "not 1"): 9.0})
    weighed(made, ASKED, record(KEY, counter=counter))
    (seen,) = made.match_model.seen
    assert seen.counters == MOST_COUNTERS
    assert seen.counter < 0, "the farthest two are none of them"
    assert seen.counter_cosine == pytest.approx(math.cos(math.radians(73)), abs=1e-6)


# -- the same words


def test_the_same_words_as_a_key_are_sure_whatever_the_model_says() -> None:
    asked = f" {KEY.upper()}?"
    made = StandIns({}, {(asked.strip(), KEY): -9.0, (asked.strip(), "other"): 2.0})
    found = weighed(made, asked, record("other", KEY))
    assert (found.score, found.key) == (SURE, KEY)
    surer = StandIns({KEY: 0}, {(KEY, KEY): 8.5})
    assert weighed(surer, KEY, record(KEY)).score == 8.5


def test_the_same_words_as_a_counter_example_are_left_alone() -> None:
    made = StandIns({KEY: 0, ASKED: 0})
    found = weighed(made, f"{ASKED}?", record(KEY, counter=["no", ASKED]))
    assert found.against == f"it is {ASKED!r}, which the edit leaves alone"
    assert weighed(made, "whose is it", record(KEY, counter=["no", ASKED])).against is None


def test_a_reading_of_the_question_may_be_the_same_words() -> None:
    made = StandIns({}, {(f"Good day! {KEY}?", KEY): -5})
    assert weighed(made, f"Good day! {KEY}?", record(KEY)).score == SURE


# -- vetoes


def test_a_given_name_must_be_said() -> None:
    scope = record(KEY, names=[["old", "lamp", "shop"], ["lumen"]], given=True)
    made = StandIns({ASKED: 0, KEY: 0})
    assert weighed(made, ASKED, scope, named=False).against == "it says none of the names old lamp shop, lumen"
    assert weighed(made, ASKED, scope).against is None
    assert weighed(made, ASKED, record(KEY, names=[["lumen"]]), named=False).against is None


def test_another_name_than_the_edits_is_against_it() -> None:
    made = StandIns({})
    scope = record("Who founded Lumen Lamps?", names=[["lumen"]])
    asked = "Who founded Tessel Mills?"
    assert weighed(made, asked, scope, named=False).against == "it names Tessel Mills, and none of the edit's own names"
    assert weighed(made, asked, scope, named=True).against is None
    assert weighed(made, "Who founded the Lamps of Ulm?", scope, named=False).against is not None
    assert weighed(made, "Who founded the Lamps?", scope, named=False).against is None, "the key says a word of it"
    assert weighed(made, "Did Davis win?", record("Did Angela Davis win?"), named=False).against is None
    assert weighed(made, "Who founded the BBC?", scope, named=False).against is None, "an abbreviation is no name"


def test_closed_class_words_are_compared_with_the_nearest_key() -> None:
    after, before = "do I take the pill after meals", "do I take the pill before meals"
    made = StandIns({"take it before meals?": 0, after: 10, before: 20})
    assert (
        weighed(made, "take it before meals?", record(after)).against == "it says 'before' where the edit says 'after'"
    )
    assert weighed(made, "take it before meals?", record(after, before)).against is None, "its keys differ there"
    row = made.decider.row("a", record(after, before))
    assert row.free == made.closed.free([after.split(), before.split()]) != frozenset()


def test_lines_are_free_on_which_the_first_keys_differ() -> None:
    keys = [
        "take it after meals",
        *(f"take it after meal {'x' * at}" for at in range(1, MOST_KEYS)),
        "take it before meals",
    ]
    decider = StandIns({}).decider
    assert decider.row("a", record(*keys)).free == frozenset()
    assert decider.row("a", record(*keys[1:])).free != frozenset()


def test_the_reading_nearest_to_the_key_is_the_one_that_may_deny_it() -> None:
    whole, last, key = (
        "I ate before. Are pills taken at meals?",
        "Are pills taken at meals?",
        "are pills taken after meals",
    )
    near_last = StandIns({whole: 60, last: 10, key: 0}, {(last, key): 1.0})
    near_whole = StandIns({whole: 10, last: 60, key: 0}, {(whole, key): 1.0})
    assert weighed(near_last, whole, record(key)).against is None
    assert weighed(near_whole, whole, record(key)).against == "it says 'before' where the edit says 'after'"


def test_the_reading_nearest_to_the_key_is_the_one_that_may_name_another() -> None:
    whole, last, key = "I am from Tessel. Who founded it?", "Who founded it?", "Who founded Lumen?"
    scope = record(key, names=[["lumen"]])
    near_last, near_whole = StandIns({whole: 60, last: 10, key: 0}), StandIns({whole: 10, last: 60, key: 0})
    assert weighed(near_last, whole, scope, named=False).against is None
    assert weighed(near_whole, whole, scope, named=False).against == "it names Tessel, and none of the edit's own names"


def test_the_question_of_a_conversation_is_read_with_the_turns_that_it_points_back_to() -> None:
    question = StandIns({}).decider.question(("Who founded Lumen?", "Ada Quill.", "How old is she?"))
    assert question.parsed.texts == ("Who founded Lumen? Ada Quill. How old is she?",)


def test_two_names_in_each_others_place_are_against_it() -> None:
    made, key = StandIns({}), "How far is it from Ulm to Bonn?"
    assert weighed(made, "How far is it from Bonn to Ulm?", record(key)).against == "it swaps two names"
    assert weighed(made, "How long is it from Ulm to Bonn?", record(key)).against is None


def test_a_near_miss_must_lie_nearer_than_the_best_key_by_a_margin() -> None:
    scope = record(KEY, misses=["who ran it", "who sells it"])
    logits = {(ASKED, KEY): 2.0, (ASKED, "who ran it"): 1.0, (ASKED, "who sells it"): 2.0 + NEARER}
    made = StandIns({}, logits)
    assert weighed(made, ASKED, scope).against == "it is nearer to 'who sells it', which asks something else"
    made.scorer.logits[ASKED, "who sells it"] -= 0.01
    assert weighed(made, ASKED, scope).against is None


def test_near_misses_are_read_where_they_may_decide() -> None:
    scope = record(KEY, misses=["who sells it"])
    for score, read in ((-VETO - 0.1, False), (-VETO + 0.1, True), (2.0, True)):
        made = StandIns({ASKED: 0, KEY: 10, "who sells it": 20}, {(ASKED, KEY): score, (ASKED, "who sells it"): 99.0})
        question = made.decider.question((ASKED,))
        assessment = made.decider.weigh(question, made.decider.row("a", scope), ALONE, named=True)
        assert ("who sells it" in question.scored, assessment.against is not None) == (read, read)
        assert not assessment.margin(0.0) >= 0


def test_of_many_near_misses_the_nearest_are_compared() -> None:
    misses = [f"miss {at}" for at in range(MOST_COUNTERS + 1)]
    angles = {ASKED: 0.0, KEY: 40.0} | {text: 80.0 - at for at, text in enumerate(misses)}
    made = StandIns(angles, {(ASKED, "miss 0"): 99.0})
    assert weighed(made, ASKED, record(KEY, misses=misses)).against is None
    made.scorer.logits[ASKED, "miss 1"] = 99.0
    assert "'miss 1'" in str(weighed(made, ASKED, record(KEY, misses=misses)).against)


def test_the_edits_question_about_another_year_is_a_near_miss() -> None:
    key, asked, dated = "Who runs the lamp shop?", "Who ran the lamp shop in 1961?", "Who runs the lamp shop in 1961?"
    made = StandIns({}, {(asked, key): 1.0, (asked, dated): 1.0 + NEARER})
    assert weighed(made, asked, record(key)).against == f"it is nearer to {dated!r}, which asks something else"
    made.scorer.logits[asked, dated] -= 0.01
    assert weighed(made, asked, record(key)).against is None


@pytest.mark.parametrize("form", ["Question: {} Answer:", "Q: {}\nA:", "{} Thanks."])
def test_the_year_is_that_of_the_sentence_that_asks(form: str) -> None:
    key, asked = "Who runs the lamp shop?", form.format("Who ran the lamp shop in 1961?")
    made = StandIns({}, {(asked, key): 1.0})
    question = made.decider.question((asked,))
    made.decider.weigh(question, made.decider.row("a", record(key)), ALONE, named=True)
    assert list(question.scored) == [key, "Who runs the lamp shop in 1961?"]


@pytest.mark.parametrize(("paraphrase", "compared"), [("Who runs it in 2026?", True), ("Who ran it in 1961?", False)])
def test_only_a_paraphrase_about_the_same_year_stands_for_it(paraphrase: str, compared: bool) -> None:
    key, asked = "Who runs the lamp shop?", "Who ran the lamp shop in 1961?"
    made = StandIns({}, {(asked, key): 1.0})
    question = made.decider.question((asked,))
    made.decider.weigh(question, made.decider.row("a", record(key, paraphrase)), ALONE, named=True)
    assert ("Who runs the lamp shop in 1961?" in question.scored) is compared


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("Who ran the lamp shop in 1961?", "Whose was the lamp shop in 1961?"),  # years that differ have a veto
        ("Who runs the lamp shop?", "I have been a customer since 1961. Whose is the lamp shop?"),
        ("Who runs the lamp shop?", "Whose is the lamp shop at number 1?"),
    ],
)
def test_a_question_is_compared_with_no_other_year_than_it_asks_about(key: str, asked: str) -> None:
    made = StandIns({}, {(asked, key): 1.0})
    question = made.decider.question((asked,))
    assert made.decider.weigh(question, made.decider.row("a", record(key)), ALONE, named=True).against is None
    assert list(question.scored) == [key]
