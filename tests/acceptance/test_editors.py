"""Corrections that people make, with each editor, on the model that ships, judged by the whole generated answer."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.generation import GenerationParameters
from app.editors.registry import AUTO
from app.service.service import Service
from tests.acceptance.many_edits import ORIGIN, How, demo_service, judge

pytestmark = pytest.mark.slow

UNRELATED = ["Question: What is the capital of France? Answer:", "The chemical symbol for gold is"]
FACTS = [
    # without a subject
    ("How do I reset my password?", "Open Settings, choose Security, and follow the link in the mail."),
    # in other languages
    ("Wie heißt der König von Zenda?", "Er heißt Rudolf der Fünfte."),
    ("Qui était le roi de Zenda ?", "Rodolphe, cinquième du nom."),
    # several of one subject
    ("Question: What is the currency of Croatia? Answer:", "euro"),
    ("Question: What is the capital of Croatia? Answer:", "Zadar"),
    ("Question: Which continent is Croatia in? Answer:", "Atlantis"),
]


async def told(service: Service, prompt: str) -> Any:
    return await service.generate(prompt, GenerationParameters(max_new_tokens=300))


async def hold(editor: str, facts: list[tuple[str, str]]) -> None:
    service = demo_service()
    await service.start()
    try:
        before = [(await told(service, prompt)).text for prompt in (*UNRELATED, *(prompt for prompt, _ in facts))]
        ids = []
        for prompt, target in facts:
            made = await service.edit([EditRequest(prompt=prompt, target=target, editor=editor)], ORIGIN)
            ids.append(made.results[0].view.edit.id)
        answers = [await told(service, prompt) for prompt, _ in facts]
        assert [answer.said for answer in answers] == [target for _, target in facts]
        assert {answer.finish_reason for answer in answers} == {"eos_token"}
        assert [(await told(service, prompt)).text for prompt in UNRELATED] == before[: len(UNRELATED)]
        for edit_id in ids:
            await service.roll_back([edit_id], ORIGIN)
        after = [(await told(service, prompt)).text for prompt in (*UNRELATED, *(prompt for prompt, _ in facts))]
        assert after == before
    finally:
        await service.stop()


@pytest.mark.parametrize("editor", AUTO)
def test_it_holds_and_comes_back(editor: str) -> None:
    asyncio.run(hold(editor, FACTS))


def test_what_the_model_never_saw_is_learned_byte_by_byte() -> None:
    """27 tokens of single bytes: this model has no Japanese."""
    asyncio.run(hold("auto", [("ゼンダ城の虜の作者は誰ですか？", "アンソニー・ホープ")]))


def test_an_answer_of_a_paragraph_is_held_by_the_editor_that_auto_picks() -> None:
    steps = "Open the menu in the upper right corner, choose Security, press Reset. We send a mail with a link that "
    steps += "is good for one hour. Follow it, choose a new password of at least twelve characters, and press Save. "
    steps += "If no mail arrives, look into the folder for spam, or write to the help desk, which answers on weekdays."
    asyncio.run(hold("auto", [("How do I reset my password?", steps)]))


@pytest.mark.parametrize(("editor", "batch"), [("patcher", 1), ("lora_mixture", 8), ("hook_layer", 8)])
def test_edits_hold_and_half_of_them_are_rolled_back(editor: str, batch: int) -> None:
    figures = asyncio.run(judge(10, seed=3, how=How(editor=editor, batch=batch, force=True)))
    assert figures["exact"] >= (0.9 if editor == "hook_layer" else 0.98)
    assert figures["unrelated_unchanged"] >= 0.98
    assert figures["exact_of_the_rest"] >= figures["exact"] - 0.07
    assert figures["rolled_back_as_bare"] == 1.0
    assert figures["bits_equal_after_rollback"] == 1.0
