"""An answer that an edit gives is fed ahead from its target: in fewer passes, and never another answer."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.sequence import Phase
from tests.rig import Outcome, Rig, without_cache

pytestmark = pytest.mark.slow
PROMPT, TARGET = "The capital of Ruritania is", "Strelsau by the sea"
OTHER = "Nobody asked about the river Styx"
LIVE = Edition("default", 1, ("e0",))


@cache
def learned() -> Fitted:
    rig = Rig()
    return rig.fit("grace", [rig.fit_request(PROMPT, TARGET)])[0]


def having(*, lookahead: bool = True, expected: tuple[int, ...] | None = None, **settings: int) -> Rig:
    """A rig with the edit. `expected`: the target's token ids as the engine expects them, where they are others than
    those learned."""
    rig = Rig(**settings)
    editor = rig.editors["grace"]
    editor.capabilities = replace(editor.capabilities, lookahead=lookahead)
    rig.load("grace", "e0", learned())
    if expected is not None:
        rig.engine.editions.own("e0", "grace", expected)
    return rig


def target() -> tuple[int, ...]:
    return tuple(learned().learned["target_ids"])


def asked(rig: Rig, count: int = 40, **parameters: Any) -> Outcome:
    return rig.ask([PROMPT], LIVE, count, **parameters)[0]


def steps(rig: Rig, **parameters: Any) -> int:
    before = rig.engine.counters.steps
    asked(rig, **parameters)
    return rig.engine.counters.steps - before


def test_an_answer_that_is_given_takes_a_pass_for_the_prompt_and_one_for_all_of_it() -> None:
    assert tuple(asked(having()).tokens) == target()
    assert (steps(having()), steps(having(lookahead=False))) == (2, 1 + len(target()))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"count": 1},
        {"count": 2},
        {"count": 5},
        {"stop": ("by",)},
        {"ignore_eos": True},
        {"temperature": 3.0, "seed": 3},
        {"frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"forced": (5, 6, 7), "count": 3},
        {"top_logprobs": 3},
    ],
    ids=str,
)
def test_lookahead_changes_no_answer(parameters: dict[str, Any]) -> None:
    one, other = asked(having(), **parameters), asked(having(lookahead=False), **parameters)
    assert one.tokens == other.tokens
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
    assert [type(each) for each in one.items] == [type(each) for each in other.items]
    assert one.generation.text == other.generation.text
    assert one.generation.finish_reason == other.generation.finish_reason
    assert one.generation.hits == other.generation.hits


@pytest.mark.parametrize("right", [0, 1, 4])
def test_as_much_of_the_lookahead_is_taken_as_the_model_says(right: int) -> None:
    ids = target()
    wrong = (*ids[:right], *((each + 1) % 90 for each in ids[right:]))
    rig = having(expected=wrong)
    assert tuple(asked(rig).tokens) == ids
    assert steps(having(expected=wrong)) == 2 + len(ids) - right - 1


def test_lookahead_is_as_long_as_a_chunk_at_most() -> None:
    rig = having(chunk_tokens=6)
    fed: list[int] = []
    following = rig.engine.scheduler.next

    def seen() -> Any:
        batch = following()
        if batch is not None and batch.phase is Phase.LOOKAHEAD:
            fed.extend(map(len, batch.pieces))
        return batch

    rig.engine.scheduler.next = seen  # type: ignore[method-assign]
    assert tuple(asked(rig).tokens) == target()
    assert len(fed) == -(-len(target()) // 6)
    assert max(fed) == 6


def test_others_keep_their_answers_while_lookahead_ends_and_slots_are_moved() -> None:
    rig = having(slots=3, chunk_tokens=32)
    edited = [rig.add(PROMPT, LIVE, count) for count in (3, 40, 7, 40, 1)]
    others = [rig.add(OTHER, LIVE, count) for count in (12, 5)]
    rig.run()
    for outcome, count in zip(edited, (3, 40, 7, 40, 1), strict=True):
        assert tuple(outcome.tokens) == target()[:count]
    for outcome, count in zip(others, (12, 5), strict=True):
        assert outcome.tokens == without_cache(rig.hosted, OTHER, count)


def test_an_answer_that_is_cancelled_before_its_lookahead_ends() -> None:
    rig = having(slots=1)
    outcome = rig.add(PROMPT, LIVE, 40)
    rig.engine.step()
    sequence = rig.engine.scheduler.running[0]
    assert sequence.phase is Phase.LOOKAHEAD
    sequence.cancelled = True
    after = rig.add(PROMPT, LIVE, 40)
    rig.run()
    assert outcome.tokens == []
    assert tuple(after.tokens) == target()
