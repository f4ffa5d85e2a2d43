"""The vetoes of one edit, with every angle and logit given: whatever its keys, something speaks against it."""

import pytest

from app.scope.decision import MOST_COUNTERS, MOST_KEYS, NEARER, VETO
from app.scope.scope_learner import ALONE
from tests.scope.stand_in import ASKED, KEY, StandIns, record, weighed


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
    assert weighed(made, "How far is it from Bonn to Ulm?", record(key)).against == "it swaps 'Bonn' and 'Ulm'"
    assert weighed(made, "How long is it from Ulm to Bonn?", record(key)).against is None


def test_numbers_with_a_point_are_compared_as_a_whole() -> None:
    made, key = StandIns({}), "What is new in 4.2?"
    against = weighed(made, "What is new in 2.4?", record(key)).against
    assert against == "it says 2.4 where the edit says 4.2"
    assert weighed(made, "What is new in 2.4?", record(key, "What is new in 5?")).against is None, (
        "its keys differ there"
    )


def test_an_edit_whose_own_keys_swap_two_phrases_is_asked_either_way_round() -> None:
    one, other, key = "Can milk follow honey?", "Can honey follow milk?", "May the milk follow the honey?"
    asked, made = "May the honey follow the milk?", StandIns({})
    assert weighed(made, asked, record(key)).against == "it swaps 'honey' and 'milk'"
    assert weighed(made, asked, record(key, one, other)).against is None
    assert weighed(made, asked, record(key, "Can milk follow tea?", "Can tea follow milk?")).against is not None


def test_a_question_in_the_words_of_a_key_is_compared_with_that_key() -> None:
    """Whatever key the scorer prefers: nothing in the question denies its own words."""
    first, second = "What is new in 4.2?", "What is new in 2.4?"
    made = StandIns({}, {(second, first): 9.0})
    assessment = weighed(made, second, record(first, second))
    assert (assessment.key, assessment.against) == (second, None)


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
