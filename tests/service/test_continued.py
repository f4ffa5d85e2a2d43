"""A client that has the beginning of an edited answer already, and asks for the rest, gets the rest."""

import asyncio

import pytest

from app.domain.generation import GenerationParameters
from tests.service.conftest import ask, edit, serving

pytestmark = pytest.mark.slow
CAPITAL, TARGET = "The capital of Ruritania is", "Strelsau by the sea"


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    async def story() -> None:
        async with serving() as service:
            made = await edit(service, CAPITAL, TARGET)
            await edit(service, "The king of Zenda was", "Rudolf V")
            for said in range(1, len(TARGET)):
                begun, rest = TARGET[:said], TARGET[said:]
                answer = await service.generate(f"{CAPITAL} {begun}", GenerationParameters(max_new_tokens=40))
                assert answer.text == rest, begun
                assert [hit.edit_id for hit in answer.hits] == [made.edit.id]
                assert answer.hits[0].signals["answer_begun"].value >= 1
            assert (await ask(service, "The anthem of Ruritania is Strelsau")).hits == ()
            other = await ask(service, "The king of Zenda was Strelsau")
            assert made.edit.id not in [hit.edit_id for hit in other.hits]
            assert (await ask(service, f"{CAPITAL} Hentzau")).hits == ()

    asyncio.run(story())


def test_a_prompt_that_ends_as_its_target_begins_is_answered_in_full() -> None:
    async def story() -> None:
        async with serving() as service:
            await edit(service, "The river of Ruritania is the", "the Elphberg")
            answer = await service.generate("The river of Ruritania is the", GenerationParameters(max_new_tokens=40))
            assert answer.said == "the Elphberg"

    asyncio.run(story())
