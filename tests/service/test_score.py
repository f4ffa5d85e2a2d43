"""Teacher forcing through the serving path: log-probabilities are the model's own, under the edits that are live."""

import asyncio

import pytest
import torch

from app.domain.generation import GenerationParameters
from tests.models import tiny
from tests.service.conftest import edit, serving

PROMPT = "The capital of Ruritania is"


def test_a_continuation_is_scored_as_the_model_itself_holds_it() -> None:
    async def story() -> None:
        async with serving() as service:
            scored = await service.score(PROMPT, "Strelsau", GenerationParameters())
            hosted = tiny("llama", 0)
            prompt = hosted.tokenizer(PROMPT).input_ids
            ids = [*prompt, *(token.id for token in scored.tokens)]
            with torch.inference_mode():
                logits = hosted.model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1)
            picked = [expected[at, token.id].item() for at, token in enumerate(scored.tokens)]
            assert [token.logprob for token in scored.tokens] == pytest.approx(picked, abs=1e-3)
            first = [token.id == int(row.argmax()) for token, row in zip(scored.tokens, expected, strict=True)]
            assert [token.likeliest for token in scored.tokens] == first
            assert not all(first)
            assert (scored.said, scored.finish_reason) == ("Strelsau", "eos_token")

    asyncio.run(story())


def test_an_edit_makes_its_target_the_likeliest_and_only_where_it_answers() -> None:
    async def story() -> None:
        async with serving() as service:
            other = await service.score("The king of Zenda was", "Strelsau", GenerationParameters())
            await edit(service, PROMPT, "Strelsau")
            scored = await service.score(PROMPT, "Strelsau", GenerationParameters())
            assert all(token.likeliest for token in scored.tokens)
            off = await service.score(PROMPT, "Strelsau", GenerationParameters(edits="off"))
            assert not all(token.likeliest for token in off.tokens)
            assert sum(t.logprob for t in off.tokens) < sum(t.logprob for t in scored.tokens)
            again = await service.score("The king of Zenda was", "Strelsau", GenerationParameters())
            assert [t.logprob for t in again.tokens] == [t.logprob for t in other.tokens]

    asyncio.run(story())
