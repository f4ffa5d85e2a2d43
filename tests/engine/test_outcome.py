"""An edit has answered where its target was said; else the answer says that it was in scope and was not given."""

from typing import Any

import pytest

from app.domain.generation import Generation
from app.engine.editions import Edition
from tests.rig import Rig

PROMPT, TARGET = "The capital of Ruritania is", "Strelsau"
EDITED = Edition("default", 1, ("e",))
OTHER = "x"
"""A token that the target does not begin with."""


@pytest.fixture(scope="module")
def rig() -> Rig:
    rig = Rig()
    rig.learn("grace", [("e", PROMPT, TARGET)])
    return rig


def asked(rig: Rig, count: int = 24, **more: Any) -> Generation:
    (outcome,) = rig.ask([PROMPT], EDITED, count, **more)
    return outcome.generation


def ids_of(found: tuple[Any, ...]) -> list[str]:
    return [hit.edit_id for hit in found]


def test_an_edit_whose_target_was_said_has_answered(rig: Rig) -> None:
    found = asked(rig)
    assert (found.text, found.finish_reason) == (f" {TARGET}", "eos_token")
    assert (ids_of(found.hits), found.not_given) == (["e"], ())


@pytest.mark.parametrize("count", range(1, 9))
def test_so_far_is_enough_where_tokens_ended_the_answer(rig: Rig, count: int) -> None:
    found = asked(rig, count)
    assert found.finish_reason == "length"
    assert (ids_of(found.hits), found.not_given) == (["e"], ())


@pytest.mark.parametrize("stop", ["sau", " S"])
def test_so_far_is_enough_where_a_stop_text_ended_the_answer(rig: Rig, stop: str) -> None:
    found = asked(rig, stop=(stop,))
    assert (found.finish_reason, ids_of(found.hits)) == ("stop_sequence", ["e"])


def test_what_follows_the_end_of_text_is_no_part_of_the_answer(rig: Rig) -> None:
    found = asked(rig, ignore_eos=True)
    assert found.finish_reason == "length"
    assert (len(found.text) > len(TARGET) + 1, ids_of(found.hits)) == (True, ["e"])


@pytest.mark.parametrize("count", [1, 2, 24])
def test_an_answer_that_left_the_target_is_not_the_edits(rig: Rig, count: int) -> None:
    found = asked(rig, count, forced=rig.engine.text.encode(OTHER))
    assert (found.hits, ids_of(found.not_given), ids_of(found.reached)) == ((), ["e"], ["e"])


def test_an_answer_that_goes_on_beyond_the_target_is_not_the_edits(rig: Rig) -> None:
    beyond = rig.engine.text.encode(f" {TARGET}? Answer: Zenda")
    found = asked(rig, len(beyond), forced=beyond)
    assert (found.hits, ids_of(found.not_given)) == ((), ["e"])


def test_without_an_edit_in_scope_there_is_nothing_to_give(rig: Rig) -> None:
    (outcome,) = rig.ask(["Who wrote the book of Zenda?"], EDITED)
    assert outcome.generation.reached == ()
