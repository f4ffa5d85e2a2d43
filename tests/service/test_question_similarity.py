"""The encoder groups similar questions of reported answers on a real server, whatever frames them."""

import asyncio

from app.domain.events import Origin
from app.domain.generation import GenerationParameters
from app.service.feedback import CURRENT_REQUEST
from tests.service.conftest import serving

LIKE = ("Who is the chief executive of Lumen?", "Who runs Lumen as its chief executive?")
OTHER = "How do I reset my password?"


def test_like_questions_are_found_together() -> None:
    async def story() -> None:
        async with serving(feedback=10) as service:
            for number, prompt in enumerate((LIKE[0], OTHER, LIKE[1])):
                CURRENT_REQUEST.set(f"r{number}")
                await service.generate(prompt, GenerationParameters(max_new_tokens=2))
                await service.feedback.report(f"r{number}", 0, None, Origin())
            groups = [[each.answer.prompt for each in group] for group in service.feedback.groups()]
            assert groups == [[LIKE[1], LIKE[0]], [OTHER]]
            assert service.status().reported_answers == 3

    asyncio.run(story())
