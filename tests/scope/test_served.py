"""The scope as it is served: with the bank that ships behind every namespace, which the other tests do without."""

import pytest

from app.scope.bank import load_bank, plain
from tests.rig import a_scope
from tests.scope.test_index import ALIEN, FOUNDER, SHIPPING, answering, load


@pytest.mark.slow
def test_the_bank_leaves_clear_questions_as_they_are_and_is_answered_by_nobody() -> None:
    bank = [plain(each) for each in load_bank()]
    scope = a_scope(bank)
    load(scope, "a", FOUNDER)
    load(scope, "b", SHIPPING)
    assert [answering(scope, question, "a", "b") for question in (FOUNDER, SHIPPING, ALIEN)] == ["a", "b", None]
    assert answering(scope, "Who was it that founded Lumen?", "a", "b") == "a"
    assert [answering(scope, question, "a", "b") for question in bank[::50]] == [None] * len(bank[::50])
