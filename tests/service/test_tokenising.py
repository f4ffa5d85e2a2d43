"""Tokenising a long text takes time, and holds up neither the engine's thread nor the connections'."""

import asyncio
import threading
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from app.domain.errors import InvalidRequest
from app.domain.generation import GenerationParameters
from app.engine.text import TextCodec
from app.service.service import Service
from tests.engine.test_text import TEMPLATE
from tests.models import MAX_TOKENS
from tests.service.conftest import ORIGIN, ask, edit, serving

pytestmark = pytest.mark.slow


class Watched:
    """The threads that tokenise, and the most characters at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[str] = set()
        self.characters = 0
        whole = TextCodec._whole

        def watched(text: TextCodec, prompt: str) -> list[int]:
            self.characters += len(prompt)
            return whole(text, prompt)

        tokenise = PreTrainedTokenizerBase.__call__

        def called(*arguments: Any, **how: Any) -> Any:
            self.threads.add(threading.current_thread().name)
            return tokenise(*arguments, **how)

        monkeypatch.setattr(TextCodec, "_whole", watched)
        monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", called)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def held_up(watched: Watched) -> set[str]:
    return {name for name in watched.threads if name in ("engine", threading.main_thread().name)}


def test_prompts_are_tokenised_beside_the_engine_and_the_connections(watched: Watched) -> None:
    async def story() -> None:
        async with serving() as service:
            await ask(service, "Who was king of Zenda?")
            await edit(service, "Who was king of Zenda?", "Rudolf", editor="grace", force=True)
            watched.threads.clear()
            await ask(service, "Who was king of Zenda then?")
            await service.generate_all(["one", "two"], GenerationParameters(max_new_tokens=2), n=2)
            await service.scope_of(["Who was king?"], "default")
            await service.set_probes("default", ["Who was queen?"], ORIGIN)
            await chat(service, "Who was king of Ruritania?")

    asyncio.run(story())
    assert watched.threads
    assert not held_up(watched)


async def chat(service: Service, said: str) -> None:
    service.engine.hosted.tokenizer.chat_template = TEMPLATE
    prompt = await asyncio.to_thread(service.answers.render, [{"role": "user", "content": said}])
    await asyncio.to_thread(service.answers.room, prompt)
    await ask(service, prompt)


def test_an_edit_is_read_beside_the_connections(watched: Watched) -> None:
    async def story() -> None:
        async with serving() as service:
            watched.threads.clear()
            with pytest.raises(InvalidRequest, match="more than 256 tokens"):
                await edit(service, "R" * 5_000, "Rudolf")

    asyncio.run(story())
    assert watched.threads
    assert not held_up(watched)


@pytest.mark.parametrize(
    "prompt", ["x" * 1_000_000, "word " * 200_000, "\n" * 1_000_000], ids=["one word", "words", "lines"]
)
@pytest.mark.parametrize("edited", [False, True])
def test_of_a_prompt_that_is_far_too_long_only_a_beginning_is_tokenised(
    watched: Watched, prompt: str, edited: bool
) -> None:
    async def story() -> Any:
        async with serving() as service:
            if edited:
                await edit(service, "Who was king of Zenda?", "Rudolf", editor="grace", force=True)
            watched.characters = 0
            watched.threads.clear()
            with pytest.raises(InvalidRequest, match=f"more than {MAX_TOKENS} tokens") as refused:
                await ask(service, prompt)
            return refused.value.details

    assert asyncio.run(story())["limit"] == MAX_TOKENS
    assert watched.characters < 100 * MAX_TOKENS
    assert not held_up(watched)


def test_a_long_text_of_few_tokens_is_a_prompt_as_any_other() -> None:
    """The limit is one of tokens: a tokenizer may make one of many characters."""
    from tests.models import tokenizer

    made: Any = tokenizer()
    made.add_tokens(["a" * 5_000])
    text = TextCodec(made, 0, MAX_TOKENS)
    assert len(text.encode("a" * 500_000)) == 100
    with pytest.raises(InvalidRequest, match="The prompt has 1000 tokens"):
        text.encode("a" * 5_000_000)
