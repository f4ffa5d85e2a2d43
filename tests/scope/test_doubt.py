"""Some decisions are uncertain and some never are; a judge is shown the keys and counter-examples that matter."""

import math

import pytest

from app.domain.scope import ScopeRequest
from app.scope.doubt import BAND, MOST_EXAMPLES, Doubt, doubt_of, is_uncertain
from app.scope.index import Match, ScopeIndex
from app.scope.vectors import Vectors
from tests.rig import a_scope, an_encoder

QUESTION = "Who founded Lumen?"
ASKED = "By whom was Lumen set up?"


@pytest.fixture
def scope() -> ScopeIndex:
    return a_scope()


def ranked(scope: ScopeIndex, question: str, *edit_ids: str) -> list[Match]:
    return scope.ranked(scope.question((question,)), scope.compile("default", edit_ids))


def load(scope: ScopeIndex, edit_id: str, question: str = QUESTION, widened: float = 1.0, **more: object) -> None:
    scope.load(edit_id, scope.learn(ScopeRequest(keys=((question,),), **more), widened).model_dump())  # type: ignore[arg-type]


def test_the_band_is_about_the_bound() -> None:
    assert is_uncertain(0.0)
    assert is_uncertain(BAND - 1e-6)
    assert is_uncertain(1e-6 - BAND)
    assert not is_uncertain(BAND)
    assert not is_uncertain(-BAND)


def test_a_margin_becomes_uncertain_as_the_bound_is_moved_to_it(scope: ScopeIndex) -> None:
    load(scope, "a")
    (before,) = ranked(scope, ASKED, "a")
    for wanted in (0.5, -0.5):
        load(scope, f"b{wanted}", widened=math.exp(wanted - before.margin))
        (found,) = ranked(scope, ASKED, f"b{wanted}")
        assert found.margin == pytest.approx(wanted, abs=1e-3)
        assert is_uncertain(found.margin)


@pytest.mark.parametrize(
    ("known", "asked", "more"),
    [
        (QUESTION, "Who founded Tessel?", {"subject": "Lumen"}),
        ("Who ran Lumen in 2019?", "Who ran Lumen in 2020?", {}),
        ("How do I open it before lunch?", "How do I open it after lunch?", {}),
        (QUESTION, "Who founded Tessel Bank?", {"counter": (("Who founded Tessel Bank?",),)}),
    ],
    ids=["subject", "number", "closed-class word", "counter-example"],
)
@pytest.mark.parametrize("widened", [0.1, 1.0, 10.0, 1e4])
def test_what_has_a_veto_is_never_uncertain(
    scope: ScopeIndex, known: str, asked: str, more: dict[str, object], widened: float
) -> None:
    """However near its margin would else lie: nobody may be asked to overrule a veto."""
    load(scope, "a", known, widened, **more)
    (found,) = ranked(scope, asked, "a")
    assert "but it" in found.why
    assert not is_uncertain(found.margin)


def test_of_several_edits_the_nearest_comes_first_and_is_the_one_that_answers(scope: ScopeIndex) -> None:
    load(scope, "a", QUESTION)
    load(scope, "b", "Who bought Lumen?")
    load(scope, "c", "How long does it take to ship a sofa?")
    found = ranked(scope, QUESTION, "a", "b", "c")
    assert [each.margin for each in found] == sorted((each.margin for each in found), reverse=True)
    assert found[0].edit_id == "a"
    assert len({each.edit_id for each in found}) == len(found)
    assert scope.nearest(scope.question((QUESTION,)), scope.compile("default", ["a", "b", "c"])) == found[0]
    assert ranked(scope, QUESTION) == []


def test_a_judge_is_shown_the_reading_that_is_nearest_and_the_nearest_examples(scope: ScopeIndex) -> None:
    keys = (QUESTION, "Who started Lumen?", "Lumen's founder?", "What is the name of Lumen's founder?")
    counter = ("How long is the Nile?", "Who founded Tessel?", "Who bought Lumen?", "Who left Lumen?", "A sofa, please")
    request = ScopeRequest(keys=tuple((key,) for key in keys), counter=tuple((text,) for text in counter))
    record = scope.learn(request)
    scope.load("a", record.model_dump())
    question = scope.question(("Good morning! My name is Ada. Who began Lumen?",))
    doubt = scope.doubt(question, "a")
    assert doubt == doubt_of(question, record, Vectors(an_encoder()).of)
    assert doubt.question == "Who began Lumen?"
    assert doubt.keys[0] == QUESTION, "the edit's own question is always shown"
    assert len(doubt.keys) == len(doubt.counter) == MOST_EXAMPLES
    assert "Who started Lumen?" in doubt.keys
    assert set(doubt.keys) <= set(keys)
    assert set(doubt.counter) == {"Who founded Tessel?", "Who bought Lumen?", "Who left Lumen?"}


def test_an_edit_with_nothing_but_its_question_has_nothing_else_to_show(scope: ScopeIndex) -> None:
    load(scope, "a")
    assert scope.doubt(scope.question((ASKED,)), "a") == Doubt(ASKED, (QUESTION,), ())
