"""The index finds the edit that a question asks for. The cases are clear: the same words, or something else."""

import threading
from typing import Any

import pytest

from app.domain.errors import IncompatibleEdit
from app.domain.scope import ScopeRequest
from app.scope.index import Match, ScopeIndex, widen
from app.scope.record import ScopeRecord
from tests.rig import a_scope, an_encoder

FOUNDER, SHIPPING = "Who founded Lumen?", "How long does it take to ship a sofa?"
ALIEN = "What is the boiling point of mercury?"


@pytest.fixture
def scope() -> ScopeIndex:
    return a_scope()


def learned(scope: ScopeIndex, question: str, *paraphrases: str, **more: Any) -> dict[str, Any]:
    for name in ("made", "counter", "misses"):
        more[name] = tuple((text,) for text in more.get(name, ()))
    keys = tuple((text,) for text in (question, *paraphrases))
    return scope.learn(ScopeRequest(keys=keys, **more)).model_dump()


def load(scope: ScopeIndex, edit_id: str, question: str, *paraphrases: str, **more: Any) -> None:
    scope.load(edit_id, learned(scope, question, *paraphrases, **more))


def nearest(scope: ScopeIndex, question: str, *edit_ids: str, namespace: str = "default") -> Match | None:
    return scope.nearest(scope.question((question,)), scope.compile(namespace, edit_ids))


def answering(scope: ScopeIndex, question: str, *edit_ids: str) -> str | None:
    found = nearest(scope, question, *edit_ids)
    return found.edit_id if found is not None and found.margin >= 0 else None


# -- what is learned


def test_what_is_learned_are_texts_and_a_bound(scope: ScopeIndex) -> None:
    record = scope.learn(
        ScopeRequest(
            keys=((f"Hello. {FOUNDER}",), ("Lumen was founded by",), (f"Hello. {FOUNDER}",)),
            made=(("Who is the founder of Lumen?",),),
            counter=(("Who founded Tessel?",),),
            misses=(("Who bought Lumen?",),),
        ),
        widened=2.0,
    )
    assert record.keys == [f"Hello. {FOUNDER}", "Lumen was founded by"]
    assert (record.made, record.counter) == (["Who is the founder of Lumen?"], ["Who founded Tessel?"])
    assert "Who bought Lumen?" in record.misses
    assert (record.names, record.given) == ([["lumen"]], False)
    assert 0 < record.bound < 1
    assert (record.widened, record.encoder) == (2.0, an_encoder().fingerprint)
    assert ScopeRecord.model_validate_json(record.model_dump_json()) == record, "it stands in a log"


def test_names_are_those_given_or_those_that_are_found(scope: ScopeIndex) -> None:
    def names(*keys: str, **more: Any) -> list[list[str]]:
        return ScopeRecord.model_validate(learned(scope, *keys, **more)).names

    assert names(FOUNDER, subject="the Lumen Company", aliases=("LC",)) == [["the", "lumen", "company"], ["lc"]]
    assert names("Who founded Ada Quill's shop?") == [["ada", "quill"]]
    assert names(FOUNDER, aliases=("LC",)) == [["lumen"], ["lc"]]
    assert names("who founded it?", aliases=("LC",)) == [], "an alias of nobody is nobody's"
    assert names(FOUNDER, "Who set up the Acme?") == [["lumen"], ["acme"]], "a paraphrase may name it otherwise"
    assert names(FOUNDER, "Did Ada found Lumen?") == [["lumen"]]


def test_the_first_name_is_told_as_it_is_written(scope: ScopeIndex) -> None:
    assert scope.name_in(("Who is Ada Quill's mother in Zenda?",)) == "Ada Quill"
    assert scope.name_in(("who is it?",)) is None
    assert scope.name_in((FOUNDER, "Ada Quill.", "How old is she?")) == "Lumen"


# -- rows and editions


def test_an_edit_answers_its_question_and_no_other_one(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    load(scope, "b", SHIPPING)
    assert "a" in scope
    assert "c" not in scope
    assert [answering(scope, question, "a", "b") for question in (FOUNDER, SHIPPING, ALIEN)] == ["a", "b", None]
    assert answering(scope, f"Good morning! {FOUNDER}", "a", "b") == "a"
    assert answering(scope, FOUNDER.lower(), "a", "b") == "a"
    assert answering(scope, "", "a", "b") is None


def test_paraphrases_and_made_ones_are_answered_too(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER, "The company Lumen was set up by", made=("Lumen's founder is",))
    for question in ("The company Lumen was set up by", "Lumen's founder is"):
        assert answering(scope, question, "a") == "a"


def test_what_an_edition_does_not_see_does_not_answer_and_is_not_nearest(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER, namespace="one")
    load(scope, "b", FOUNDER, namespace="other")
    load(scope, "c", SHIPPING)
    assert answering(scope, FOUNDER, "a") == "a"
    assert answering(scope, FOUNDER, "b") == "b"
    assert answering(scope, FOUNDER, "c") is None
    assert answering(scope, FOUNDER) is None
    seen_alone = nearest(scope, SHIPPING, "c")
    assert seen_alone is not None
    assert seen_alone.edit_id == "c"
    assert nearest(scope, FOUNDER, "c") is None, "it is no match, and what is nearer is not seen"
    assert nearest(scope, FOUNDER) is None
    assert scope.compile("default", ["not here"]).order == {}, "an edit of an editor that decides itself"


def test_an_edit_that_is_dropped_gives_its_place_to_another(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER, "Lumen's founder is")
    held = scope.held_bytes
    part = scope.compile("default", ["a"])
    scope.drop("a")
    assert "a" not in scope
    load(scope, "b", SHIPPING)
    assert scope.held_bytes == held
    assert answering(scope, FOUNDER, "b") is None
    assert answering(scope, SHIPPING, "b") == "b"
    load(scope, "a", FOUNDER)
    assert answering(scope, FOUNDER, "a", "b") == "a"
    assert part.order.keys() != scope.compile("default", ["a"]).order.keys(), "its row is a new one"
    with pytest.raises(AssertionError):
        load(scope, "a", FOUNDER)


def test_of_equal_ones_the_newest_answers_whichever_was_loaded_first(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    load(scope, "b", FOUNDER)
    assert answering(scope, FOUNDER, "a", "b") == "b"
    assert answering(scope, FOUNDER, "b", "a") == "a"


def test_one_edit_with_many_keys_does_not_crowd_out_another(scope: ScopeIndex) -> None:
    load(scope, "crowd", "Who founded Tessel?", *(f"Who founded Tessel number {at}?" for at in range(60)))
    load(scope, "a", FOUNDER)
    assert answering(scope, FOUNDER, "a", "crowd") == "a"


def test_a_record_that_cannot_be_read_leaves_nothing(scope: ScopeIndex) -> None:
    for wrong in (None, 7, {}, {"keys": ["x"]}, {"keys": [], "bound": 0.5}, {"keys": ["x"], "bound": 1.0}):
        with pytest.raises(IncompatibleEdit, match="scope of the edit a cannot be read"):
            scope.load("a", wrong)
    assert "a" not in scope
    load(scope, "a", FOUNDER)
    assert answering(scope, FOUNDER, "a") == "a"


def test_what_is_read_ahead_may_be_wrong(scope: ScopeIndex) -> None:
    """It is told when it is loaded, with the edit's name."""
    scope.read_ahead([7, {"keys": 7}, {"keys": [7, "x"]}, {"keys": [["x"]]}, learned(scope, FOUNDER)])
    load(scope, "a", FOUNDER)
    assert answering(scope, FOUNDER, "a") == "a"


@pytest.mark.slow
def test_threads_may_load_and_drop_while_others_ask(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    records = [learned(scope, f"Who painted the picture number {at}?") for at in range(20)]
    part, failed = scope.compile("default", ["a"]), []

    def churn() -> None:
        try:
            for turn in range(10):
                for at, each in enumerate(records):
                    scope.load(f"e{turn}.{at}", each)
                for at in range(len(records)):
                    scope.drop(f"e{turn}.{at}")
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=churn)
    thread.start()
    asked = 0
    while thread.is_alive() or asked < 10:
        found = scope.nearest(scope.question((FOUNDER,)), part)
        assert found is not None
        assert found.margin >= 0
        assert found.edit_id == "a"
        asked += 1
    thread.join()
    assert failed == []


# -- deciding


def test_a_subject_that_was_given_must_be_named(scope: ScopeIndex) -> None:
    load(scope, "given", FOUNDER, subject="Lumen", aliases=("the lamp factory",))
    assert answering(scope, FOUNDER, "given") == "given"
    found = nearest(scope, "Who founded Lumin?", "given")
    assert found is not None
    assert found.margin < 0
    assert "it says none of the names Lumen, the lamp factory" in found.why
    assert (found.signals["named"].value, found.signals["named"].bound) == (0, 1)


def test_a_question_that_says_an_alias_in_place_of_the_subject_is_answered(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER, subject="Lumen", aliases=("the old lamp factory",))
    found = nearest(scope, "Who founded the old lamp factory?", "a")
    assert found is not None
    assert found.signals["named"].value == 1
    assert answering(scope, "Who founded the old lamp factory?", "a") == "a"


def test_a_name_that_was_found_counts_and_is_no_must(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    named, unnamed = nearest(scope, FOUNDER, "a"), nearest(scope, "who founded the company lumin", "a")
    assert named is not None
    assert unnamed is not None
    assert (named.signals["named"].value, unnamed.signals["named"].value) == (1, 0)
    assert named.signals["named"].bound == unnamed.signals["named"].bound == 0
    assert "names" not in unnamed.why
    assert unnamed.margin < named.margin


def test_a_counter_example_is_left_alone(scope: ScopeIndex) -> None:
    near = "Who founded the Lumen Foundation?"
    load(scope, "free", FOUNDER, near)
    load(scope, "bounded", FOUNDER, counter=(near, ALIEN))
    assert answering(scope, near, "free") == "free"
    assert answering(scope, near, "bounded") is None
    assert answering(scope, FOUNDER, "bounded") == "bounded"


def test_a_counter_example_wins_over_a_key_that_is_no_nearer(scope: ScopeIndex) -> None:
    load(scope, "torn", FOUNDER, counter=(FOUNDER,))
    found = nearest(scope, FOUNDER, "torn")
    assert found is not None
    assert found.margin < 0
    assert f"it is {FOUNDER!r}, which the edit leaves alone" in found.why


@pytest.mark.parametrize(
    ("question", "asked", "told"),
    [
        ("Do I take the pill before meals?", "Do I take the pill after meals?", "'after' where the edit says 'before'"),
        ("Who is the current king of Zenda?", "Who is the former king of Zenda?", "'former'"),
        ("What was new in Lumen 2020?", "What was new in Lumen 2021?", "its numbers (2021)"),
        ("Kaffee mit Zucker?", "Kaffee ohne Zucker?", "'ohne'"),
    ],
)
def test_a_question_that_denies_the_key_is_not_answered_and_is_told_why(
    scope: ScopeIndex, question: str, asked: str, told: str
) -> None:
    load(scope, "a", question)
    assert answering(scope, question, "a") == "a"
    found = nearest(scope, asked, "a")
    assert found is not None
    assert found.margin < 0
    assert told in found.why


def test_a_key_that_is_denied_does_not_stand_before_one_that_is_not(scope: ScopeIndex) -> None:
    load(scope, "before", "Do I take the pill before meals?")
    load(scope, "after", "Do I take the pill after meals?")
    for order in (("before", "after"), ("after", "before")):
        for name in ("before", "after"):
            assert answering(scope, f"Do I take the pill {name} meals?", *order) == name


def test_what_is_told_of_a_decision(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    found = nearest(scope, FOUNDER, "a")
    assert found is not None
    same = found.signals["same"]
    assert same.value >= same.bound
    assert found.signals["cosine"].value == pytest.approx(1, abs=1e-3)
    assert f"nearest to {FOUNDER!r}" in found.why
    assert "but" not in found.why


def test_widening_divides_the_odds_of_the_bound(scope: ScopeIndex) -> None:
    record = learned(scope, FOUNDER)
    scope.load("a", record)
    scope.load("wide", widen(record, 4.0))
    scope.load("narrow", widen(widen(record, 0.5), 0.5))
    bounds = {}
    for name in ("a", "wide", "narrow"):
        found = nearest(scope, FOUNDER, name)
        assert found is not None
        bound = found.signals["same"].bound
        bounds[name] = bound / (1 - bound)
    assert bounds["wide"] == pytest.approx(bounds["a"] / 4, rel=0.02)
    assert bounds["narrow"] == pytest.approx(bounds["a"] * 4, rel=0.02)


def test_a_turn_that_points_back_is_answered_as_it_is_meant(scope: ScopeIndex) -> None:
    asked = (FOUNDER, "Ada Quill.", "How old is she?")
    scope.load("a", scope.learn(ScopeRequest(keys=(asked,))).model_dump())
    part = scope.compile("default", ["a"])
    found = scope.nearest(scope.question(asked), part)
    assert found is not None
    assert found.margin >= 0
    assert found.edit_id == "a"
    for others in (("Who wrote the Kalevala?", "Elias Lönnrot.", "How old is she?"), ("How old is she?",)):
        other = scope.nearest(scope.question(others), part)
        assert other is not None
        assert other.margin < 0


# -- what stands beside


@pytest.mark.parametrize(
    ("edit", "asked"), [("What does 😀 mean?", "What does 🚀 mean?"), ("鯖の値段は何ですか?", "鮪の価格は何ですか?")]
)
def test_what_the_encoder_cannot_read_is_not_word_for_word_the_same(scope: ScopeIndex, edit: str, asked: str) -> None:
    load(scope, "a", edit)
    same, other = (nearest(scope, text, "a") for text in (edit.upper().rstrip("?"), asked))
    assert same is not None
    assert other is not None
    assert same.margin > other.margin


def test_a_scope_that_is_learned_again_is_as_wide_as_before() -> None:
    scope = a_scope([FOUNDER.replace("Lumen", name) for name in ("Tessel", "Ordo", "Veltora")])
    request = ScopeRequest(keys=((FOUNDER,),))
    once = scope.learn(request, widened=2.0)
    assert scope.learn(request, widened=once.widened).bound == once.bound == scope.learn(request).bound
