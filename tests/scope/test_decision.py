"""The decision on one edit, with every angle and logit given: what is compared, what vetoes, and what is said of it."""

import math

import pytest
import torch

from app.domain.generation import Signal
from app.scope.background import NearbyBackground
from app.scope.decision import MOST_COUNTERS, MOST_KEYS, SURE, Assessment, bare, logit, share
from app.scope.match_model import MatchFeatures
from tests.scope.stand_in import ASKED, KEY, STEEP, StandIns, record, turned, weighed

FIGURES = MatchFeatures.of(
    torch.tensor([1.0]), torch.tensor([0.87654]), torch.zeros(0), torch.zeros(0),
    contrast=0.123456, traffic=False, cohesion=0.0, unnamed=True,
)  # fmt: skip


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
