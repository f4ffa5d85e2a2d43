"""Edits of a help desk beside one another: none is in the way of another that asks for something else, and each is in
the way of one that asks its own question in other words."""

import pytest

from app.domain.scope import ScopeRequest
from app.scope.index import ScopeIndex
from tests.help_desk import HELP_DESK, LOCK
from tests.rig import a_scope, an_encoder

pytestmark = pytest.mark.slow
IN_THE_WAY = frozenset(
    {
        (LOCK, "My account is locked because I tried too often. How do I get back in?"),
        (
            "How do I unlock my account after too many attempts?",
            "Somebody has left the company: how is that person's account locked?",
        ),
        ("How do I change my password?", "My account is locked because I tried too often. How do I get back in?"),
        ("How do I change my password?", "I have a new phone. How do I move the two-factor login to it?"),
        ("How do I set an out-of-office reply?", "What is the way to call off a meeting?"),
    }
)
"""Known failures, which must not become more: the edit, and the question of another that it answers."""


@pytest.fixture(scope="module")
def scope() -> ScopeIndex:
    """An index with each edit in it, under its question."""
    index = a_scope()
    an_encoder().encode([text for pair in HELP_DESK.items() for text in pair])  # together, which is faster
    for question in HELP_DESK:
        index.load(question, index.learn(ScopeRequest(keys=((question,),))).model_dump())
    return index


def answered(scope: ScopeIndex, edit: str, text: str) -> bool:
    """True if the edit would answer the text if it alone were live."""
    match = scope.nearest(scope.question((text,)), scope.compile("default", [edit]))
    return match is not None and match.margin >= 0


def test_no_edit_answers_what_another_asks(scope: ScopeIndex) -> None:
    texts = [(question, text) for question, same in HELP_DESK.items() for text in (question, same)]
    pairs = [(edit, text) for edit in HELP_DESK for question, text in texts if question != edit]
    wrong = {(edit, text) for edit, text in pairs if answered(scope, edit, text)}
    assert len(HELP_DESK) >= 20
    assert wrong <= IN_THE_WAY, f"{len(wrong)} of {len(pairs)} are answered: {sorted(wrong - IN_THE_WAY)}"


def test_an_edit_answers_its_question_in_other_words(scope: ScopeIndex) -> None:
    missed = [same for question, same in HELP_DESK.items() if not answered(scope, question, same)]
    share = 1 - len(missed) / len(HELP_DESK)
    assert share >= 0.8, f"{share:.2f} are answered, and not {missed}"
