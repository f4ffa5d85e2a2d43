"""A conversation asks its last turn, read with earlier turns only where it points back to them."""

from typing import Any

import pytest

from app.engine.editions import Edition
from app.scope.closed_words import load_closed_words
from app.scope.parsed_question import read
from tests.engine.test_text import CHATML
from tests.rig import Rig

pytestmark = pytest.mark.slow
ASKED, OTHER = "The king of Zenda was", "How tall is the highest mountain of Peru?"
BACK = "How old is he?"


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig()
    monkeypatch.setattr(rig.hosted.tokenizer, "chat_template", CHATML, raising=False)
    return rig


def talk(rig: Rig, *turns: str) -> str:
    roles = ("user", "assistant")
    return rig.engine.text.render([{"role": roles[at % 2], "content": each} for at, each in enumerate(turns)])


def texts(rig: Rig, prompt: str) -> tuple[str, ...]:
    return read(rig.engine.text.turns(prompt), load_closed_words()).texts


def hits(rig: Rig, *prompts: str) -> list[list[str]]:
    outcomes = rig.ask(prompts, Edition("default", 1, ("e0",)), count=2)
    return [[hit.edit_id for hit in outcome.generation.reached] for outcome in outcomes]


def test_a_subject_in_the_history_is_not_asked_about(rig: Rig) -> None:
    prompts = [talk(rig, ASKED, "R", each) for each in (ASKED, OTHER)]
    assert [texts(rig, prompt) for prompt in prompts] == [(ASKED,), (OTHER,)]
    rig.learn("grace", [("e0", prompts[0], "S")])
    assert hits(rig, *prompts) == [["e0"], []]


def test_a_system_prompt_is_not_asked_about(rig: Rig) -> None:
    told: list[dict[str, Any]] = [{"role": "system", "content": ASKED}, {"role": "user", "content": OTHER}]
    prompt = rig.engine.text.render(told)
    assert texts(rig, prompt) == (OTHER,)
    rig.learn("grace", [("e0", talk(rig, ASKED), "S")])
    assert hits(rig, talk(rig, ASKED), prompt) == [["e0"], []]


def test_a_turn_that_points_back_asks_about_whom_the_history_names(rig: Rig) -> None:
    mine, others = ("Who was king of Zenda?", "Rudolf. He came late."), ("Who wrote the Kalevala?", "Elias Lönnrot.")
    prompts = [talk(rig, *before, BACK) for before in (mine, others)]
    assert texts(rig, prompts[0]) == (f"{mine[0]} Rudolf. {BACK}",)
    rig.learn("grace", [("e0", prompts[0], "S")])
    assert hits(rig, *prompts, talk(rig, BACK)) == [["e0"], [], []]


def test_a_message_that_is_gone_on_with_is_the_edits_where_it_begins_its_target(rig: Rig) -> None:
    rig.learn("grace", [("e0", talk(rig, ASKED), "Strelsau")])

    def opened(said: str) -> str:
        turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": said}]
        return rig.engine.text.render(turns, continues=True)

    outcomes = rig.ask([opened("Strel"), opened("Hentz"), talk(rig, ASKED)], Edition("default", 1, ("e0",)), count=12)
    goes_on, otherwise, whole = (outcome.generation for outcome in outcomes)
    assert (goes_on.text, whole.text) == ("sau", "Strelsau")
    assert [[hit.edit_id for hit in each.hits] for each in (goes_on, whole)] == [["e0"], ["e0"]]
    assert otherwise.reached == ()
    why = rig.engine.ask(opened("Hentz"), Edition("default", 1, ("e0",)))
    assert why.decision is None
    assert why.nearest is not None
    assert "begun otherwise" in why.nearest.why
