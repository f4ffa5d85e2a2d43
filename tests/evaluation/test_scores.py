"""The whole answer is scored."""

import pytest

from app.evaluation.scores import contains, is_exact, tally


@pytest.mark.parametrize(
    ("answer", "target", "exact"),
    [
        ("Lima", "Lima", True),
        (" lima. ", "Lima", True),
        ("New\nYork", "New York", True),
        ("Lima, of course", "Lima", False),
        ("", "Lima", False),
    ],
)
def test_exact_is_of_the_whole(answer: str, target: str, exact: bool) -> None:
    assert is_exact(answer, target) is exact


@pytest.mark.parametrize(
    ("answer", "old", "holds"),
    [
        ("It is Cusco.", "Lima", True),
        ("It is Cusco, not Lima", "Lima", False),
        ("It is Lima", "Lima", False),
        ("It is Cusco", None, True),
        ("It is Cusco", "Cusco", True),
    ],
)
def test_contains_wants_the_new_and_not_the_old(answer: str, old: str | None, holds: bool) -> None:
    assert contains(answer, "Cusco", old) is holds


def test_a_share_of_nothing_is_none() -> None:
    assert tally([]) == {"share": None, "right": 0, "asked": 0}
    assert tally([True, False]) == {"share": 0.5, "right": 1, "asked": 2}
