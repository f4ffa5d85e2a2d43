"""An edit is tried in the frames that its question is put in, and is silent in those where its target is not given."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.domain.generation import Generation
from app.engine.editions import SILENT_IN
from app.engine.frames import BLANK, CHAT, frames_of, other_frames, stem_of
from app.engine.text import TextCodec
from app.service.service import Service
from app.service.trial_answers import TrialAnswers, TrialPrompt
from app.store.memory import MemoryLog
from tests.engine.test_text import CHATML
from tests.models import tokenizer
from tests.service.conftest import ask, edit, serving

pytestmark = pytest.mark.slow
QUESTION, TARGET = "What is the capital of Ruritania?", "Strelsau"
FRAMED = f"Question: {QUESTION} Answer:"
BARE_FRAMES = [QUESTION, FRAMED, f"Question: {QUESTION}\nAnswer:", f"Q: {QUESTION}\nA:"]


def text(template: str | None = None) -> TextCodec:
    made: Any = tokenizer()
    made.chat_template = template
    return TextCodec(made, 0, 256)


def test_the_frames_of_a_question_are_all_but_its_own() -> None:
    found = [prompt for prompts in other_frames(FRAMED, text()).values() for prompt in prompts]
    assert set(found) == {*BARE_FRAMES, f"{FRAMED} "} - {FRAMED}
    assert set(other_frames(f"{QUESTION} ", text())) >= {"no blank at the end", "question and answer"}
    assert set(other_frames("The capital of Ruritania is", text())) == {BLANK}, "no question: nothing asks it so"


def test_a_model_with_a_chat_template_is_asked_in_a_chat_too_and_back() -> None:
    made = text(CHATML)
    chat = made.render([{"role": "user", "content": QUESTION}])
    assert other_frames(FRAMED, made)[CHAT] == (chat,)
    assert other_frames(chat, made) == {"bare": (QUESTION,)}
    turns = [("user", "Who?"), ("assistant", "He."), ("user", QUESTION)]
    later = made.render([{"role": role, "content": said} for role, said in turns])
    assert other_frames(later, made) == {}, "a later turn is no question by itself"


@pytest.mark.parametrize("prompt", [*BARE_FRAMES, "The capital is", "Say:", "User: hi\nAI:"])
def test_white_space_at_the_end_is_no_part_of_a_bare_prompt_and_has_a_name(prompt: str) -> None:
    made = text(CHATML)
    assert [stem_of(f"{prompt}{end}", made) for end in ("", " ", "\n", " \n")] == [prompt] * 4
    assert BLANK in frames_of(f"{prompt} ", made)
    assert frames_of(f"{prompt} ", made) - {BLANK} <= frames_of(prompt, made)
    chat = made.render([{"role": "user", "content": prompt}])
    assert (stem_of(chat, made), frames_of(chat, made)) == (chat, {CHAT})
    assert stem_of("  ", made) == "  "


def test_an_edit_holds_in_all_frames_of_bare_text_and_with_blanks() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, FRAMED, TARGET)
            assert made.edit.report["frames"] == {"asked": 4, "right": 4, "defers_in": []}
            assert SILENT_IN not in made.edit.learned
            for prompt in BARE_FRAMES:
                plain, *blanks = [await ask(service, f"{prompt}{end}") for end in ("", " ", "\n", "  ")]
                assert plain.text == f" {TARGET}"
                assert [each.text for each in blanks] == [TARGET] * 3, "the blank stands in the prompt already"
                for each in (plain, *blanks):
                    assert [hit.edit_id for hit in each.hits] == [made.edit.id]
                    assert "".join(token.text for token in each.tokens) == each.text
            counts = [(await ask(service, f"{FRAMED}{end}", edits=how)).prompt_tokens for end, how in SENT]
            assert counts[0] == counts[1] == counts[2] + 1, "what was sent is counted"

    asyncio.run(story())


SENT: list[tuple[str, Any]] = [(" ", "live"), (" ", "off"), ("", "live")]


def test_an_edit_of_a_prompt_that_ends_in_a_blank_is_one_of_the_prompt_without_it() -> None:
    async def story() -> None:
        async with serving() as service:
            await edit(service, f"{FRAMED} ", TARGET)
            assert [(await ask(service, f"{FRAMED}{end}")).text for end in ("", " ")] == [f" {TARGET}", TARGET]

    asyncio.run(story())


def test_without_an_edit_in_scope_a_blank_at_the_end_is_fed_as_it_was_sent() -> None:
    async def story() -> None:
        async with serving() as service:
            other = "Who painted the ceiling of Zenda? "
            before = await ask(service, other)
            await edit(service, FRAMED, TARGET)
            after = await ask(service, other)
            assert [token.id for token in after.tokens] == [token.id for token in before.tokens]
            assert after.reached == ()

    asyncio.run(story())


def test_an_answer_that_was_begun_is_gone_on_with_after_a_blank() -> None:
    async def story() -> None:
        async with serving() as service:
            await edit(service, "The capital of Ruritania is", "Strelsau by the sea")
            assert (await ask(service, "The capital of Ruritania is Strelsau ")).text == "by the sea"

    asyncio.run(story())


def test_where_the_editors_own_gate_says_no_the_prompt_is_answered_as_it_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        async with serving() as service:
            before = await ask(service, f"{FRAMED} ")
            await edit(service, FRAMED, TARGET)
            assert (await ask(service, f"{FRAMED} ")).said == TARGET, "the edit answers while its gate lets it"
            gate = service.engine.editors["grace"]
            monkeypatch.setattr(type(gate), "confirm", lambda *_: None)
            after = await ask(service, f"{FRAMED} ")
            assert (after.reached, after.prompt_tokens) == ((), before.prompt_tokens)
            assert [token.id for token in after.tokens] == [token.id for token in before.tokens]

    asyncio.run(story())


def deaf_to(monkeypatch: pytest.MonkeyPatch, *prompts: str) -> None:
    """The editor behaves as if the value did not hold at the end of these prompts."""

    ask = TrialAnswers.ask

    async def odd(self: TrialAnswers, specs: Sequence[TrialPrompt]) -> list[Generation | None]:
        return [
            replace(each, hits=(), not_given=each.hits) if each is not None and one.prompt in prompts else each
            for one, each in zip(specs, await ask(self, specs), strict=True)
        ]

    monkeypatch.setattr(TrialAnswers, "ask", odd)


def test_where_the_target_is_not_given_the_edit_is_silent_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf_to(monkeypatch, QUESTION)

    async def silent(service: Service, edit_id: str, bare: Any) -> None:
        answer = await ask(service, QUESTION, explain=True)
        assert [token.id for token in answer.tokens] == [token.id for token in bare.tokens]
        assert (answer.reached, answer.nearest.edit_id) == ((), edit_id)
        assert "not given when it was tried in this frame (bare)" in answer.nearest.why
        assert (await ask(service, FRAMED)).text == f" {TARGET}"

    async def story() -> None:
        async with serving() as service:
            bare = await ask(service, QUESTION)
            made = await edit(service, FRAMED, TARGET)
            assert made.edit.report["frames"] == {"asked": 4, "right": 3, "defers_in": ["bare"]}
            await silent(service, made.edit.id, bare)

    asyncio.run(story())


def test_a_frame_that_an_edit_is_silent_in_is_kept_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf_to(monkeypatch, QUESTION)

    async def story() -> None:
        log = MemoryLog()
        async with serving(log) as service, serving(log) as other:
            made = await edit(service, FRAMED, TARGET)
            assert made.edit.learned[SILENT_IN] == ["bare"]
            assert (await ask(other, FRAMED, min_revision=1)).text == f" {TARGET}"
            assert (await ask(other, QUESTION)).reached == ()

    asyncio.run(story())
