"""Edits that may be about the same as a request, among those of its namespace."""

from collections.abc import Iterable

import pytest

from app.domain.scope import ScopeRequest
from app.scope.index import MOST_NEAR, ScopeIndex
from tests.rig import a_scope
from tests.scope.test_index import ALIEN, FOUNDER, SHIPPING, learned, load


@pytest.fixture
def scope() -> ScopeIndex:
    return a_scope()


def near(scope: ScopeIndex, question: str, among: Iterable[str]) -> list[str]:
    return scope.near(ScopeRequest(keys=((question,),)), among)


def test_edits_about_the_same_are_found_live_or_not(scope: ScopeIndex) -> None:
    load(scope, "a", FOUNDER)
    load(scope, "b", "Where is the head office of Lumen?")
    load(scope, "c", SHIPPING)
    assert near(scope, "What does Lumen sell?", "abc") == ["a", "b"]
    assert near(scope, "What does Lumen sell?", "cbx") == ["b"], "of those that are asked about"
    assert near(scope, "How long does shipping a sofa take?", "abc") == ["c"]
    assert near(scope, ALIEN, "abc") == []
    scope.drop("a")
    assert near(scope, FOUNDER, "abc") == ["b"]
    assert near(a_scope(), FOUNDER, "abc") == []


def test_edits_about_the_same_are_not_lost_among_those_of_other_namespaces(scope: ScopeIndex) -> None:
    """Many namespaces correct the same question, and an edit is verified on its neighbours in its own."""
    question, other = "how long do sofas take to arrive?", "how long does it take a sofa to arrive?"
    record = learned(scope, question)
    for number in range(2 * MOST_NEAR):
        scope.load(f"theirs{number}", record)
    load(scope, "ours", other)
    assert near(scope, question, ["ours"]) == ["ours"]
