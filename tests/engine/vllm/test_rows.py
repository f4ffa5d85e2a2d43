"""Each position receives its row, whatever vLLM does with the request meanwhile."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.vllm.inside.errata_vllm.rows import (
    StepSpan,
    acting_rows,
    cache_salt,
    chosen_edit,
    tokens_ahead,
    value_digest,
)

TARGET = (7, 8, 9)
PROMPT = 5


def placed(pieces: Sequence[int], generated: Sequence[int], begun: int = 0, first: int = 0) -> dict[int, int]:
    """Absolute position -> row, over the steps that compute the pieces one after the other."""
    found = {}
    for count in pieces:
        span = StepSpan(first, count, PROMPT, generated)
        found |= {first + offset: row for offset, row in acting_rows(span, TARGET, begun)}
        first += count
    return found


def test_the_last_token_of_the_prompt_receives_the_first_row() -> None:
    assert placed([PROMPT], []) == {4: 0}
    assert placed([PROMPT - 1], []) == {}


def test_each_decode_step_receives_the_row_of_the_next_target_token() -> None:
    assert placed([1], [7], first=5) == {5: 1}
    assert placed([1], [7, 8], first=6) == {6: 2}
    assert placed([1], [7, 8, 9], first=7) == {}, "the target is complete"


def test_an_answer_that_has_left_the_target_receives_no_row() -> None:
    assert placed([1], [6], first=5) == {}
    assert placed([1], [7, 6], first=6) == {}
    assert placed([1], [6, 8], first=6) == {}, "it stays so when a later token agrees"


def test_a_prompt_that_has_begun_the_target_goes_on_in_its_middle() -> None:
    assert placed([PROMPT], [], begun=2) == {4: 2}
    assert placed([1], [8], begun=1, first=5) == {5: 2}
    assert placed([1], [7], begun=1, first=5) == {}


def test_a_step_that_is_ahead_of_its_tokens_is_refused() -> None:
    """Asynchronous scheduling would be like this, and a row could not be chosen."""
    with pytest.raises(ValueError, match="has no token yet"):
        placed([1], [7], first=6)


@given(st.lists(st.sampled_from((6, 7, 8, 9)), max_size=4), st.integers(0, 5), st.integers(0, 2))
def test_drafted_tokens_receive_the_rows_that_they_would_have_one_by_one_up_to_the_first_wrong_one(
    drafted: list[int], right: int, begun: int
) -> None:
    """The step after the first one of an answer, whose model would say `said`."""
    said = [*TARGET[begun:], 6, 6, 6, 6, 6]
    first = said[:1]
    ahead = [*said[1 : 1 + right], *drafted]
    together = placed([1 + len(ahead)], [*first, *ahead], begun, first=PROMPT)
    accepted = next(
        (at for at, (one, other) in enumerate(zip(ahead, said[1:], strict=False)) if one != other), len(ahead)
    )
    for at in range(accepted + 1):
        alone = placed([1], said[: 1 + at], begun, first=PROMPT + at)
        assert together.get(PROMPT + at) == alone.get(PROMPT + at)


def test_what_comes_next_in_a_target_is_drafted_until_the_answer_leaves_it() -> None:
    assert tuple(tokens_ahead([], TARGET)) == TARGET
    assert tuple(tokens_ahead([7], TARGET)) == (8, 9)
    assert tuple(tokens_ahead([8], TARGET, begun=1)) == (9,)
    assert [*tokens_ahead([6], TARGET), *tokens_ahead([7, 8, 9], TARGET), *tokens_ahead([7, 8, 9, 6], TARGET)] == []


@st.composite
def ways(draw: st.DrawFn) -> tuple[list[int], int, list[int]]:
    """An answer so far, where the computing begins, and the pieces that it runs in up to the newest token."""
    generated = draw(st.lists(st.sampled_from((6, 7, 8, 9)), max_size=5))
    if draw(st.booleans()):
        generated = [*TARGET[: draw(st.integers(0, 3))], *generated][:5]
    end = PROMPT + len(generated)
    first = draw(st.integers(0, PROMPT - 1))
    cuts = sorted(draw(st.sets(st.integers(first + 1, end - 1)))) if end - first > 1 else []
    places = [first, *cuts, end]
    return generated, first, [b - a for a, b in pairwise(places)]


@given(ways(), st.integers(0, 2))
def test_chunks_cached_beginnings_and_preemption_place_the_rows_of_the_answer_without_them(
    way: tuple[list[int], int, list[int]], begun: int
) -> None:
    generated, first, pieces = way
    as_it_ran = placed([PROMPT], [], begun)
    for at in range(len(generated)):
        as_it_ran |= placed([1], generated[: at + 1], begun, first=PROMPT + at)
    assert placed(pieces, generated, begun, first) == as_it_ran


def test_a_request_names_its_edit_or_none() -> None:
    assert chosen_edit(None) is None
    assert chosen_edit({"other": 1}) is None
    assert chosen_edit({"errata_edit": "e1@3"}) == ("e1@3", 0)
    assert chosen_edit({"errata_edit": "e1@3", "errata_begun": 2}) == ("e1@3", 2)


@pytest.mark.parametrize(
    "extra", [{"errata_edit": 3}, {"errata_edit": "e", "errata_begun": -1}, {"errata_edit": "e", "errata_begun": "2"}]
)
def test_a_request_with_values_of_a_wrong_type_is_refused(extra: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="errata_edit must be a text"):
        chosen_edit(extra)


def test_a_salt_differs_with_all_that_changes_keys_and_values() -> None:
    digest = value_digest(TARGET, b"1234")
    salts = {
        cache_salt(digest, 5, 0),
        cache_salt(value_digest(TARGET, b"1235"), 5, 0),
        cache_salt(value_digest((7, 8), b"1234"), 5, 0),
        cache_salt(digest, 6, 0),
        cache_salt(digest, 5, 1),
    }
    assert len(salts) == 5
    assert cache_salt(value_digest(list(TARGET), b"1234"), 5, 0) in salts, "the same value again shares its blocks"
