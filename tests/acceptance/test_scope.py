"""Whom edits reach on the model that ships: support questions that name nobody, facts of one subject, corrections of
corrections."""

import asyncio

import pytest

from app.domain.edit import EditRequest
from app.service.service import Service
from tests.acceptance.many_edits import ORIGIN, ask, demo_service

pytestmark = pytest.mark.slow

RESET, SETTINGS = "How do I reset my password?", "Open Settings, then Security, and choose Reset password."
INVOICES, BILLING = "Where do I see my invoices?", "Under Billing, in the tab Invoices."
CROATIA = "Question: What is the currency of Croatia? Answer:"


async def edit(service: Service, prompt: str, target: str) -> str:
    made = await service.edit([EditRequest(prompt=prompt, target=target)], ORIGIN)
    return made.results[0].view.edit.id


@pytest.mark.parametrize("frame", ["{}", "Please tell me. {}", "Q: {}\nA:", "Question: {} Answer:"])
@pytest.mark.parametrize("editor", ["grace", "lora_mixture", "hook_layer"])
def test_a_question_is_answered_and_no_other_whatever_frame_it_stands_in(editor: str, frame: str) -> None:
    """This model's state at the end of a bare question says next to nothing about its content."""

    async def story() -> None:
        service = demo_service()
        await service.start()
        try:
            others = [
                frame.format(each)
                for each in (
                    "What is the capital of Croatia?", "What is the official language of Croatia?",
                    "Croatia is nice. Who wrote Hamlet?", "What is the currency of Hungary?", "Is it raining?",
                    "How do I reset my password?",
                )
            ]  # fmt: skip
            before = [each.said for each in await ask(service, others)]
            for text, target in (("What is the currency of Croatia?", "euro"), ("who are you?", "Lumen")):
                request = EditRequest(prompt=frame.format(text), target=target, editor=editor)
                await service.edit([request], ORIGIN)
            same = [frame.format(each) for each in ("Which currency does Croatia use?", "who are you?")]
            assert [each.said for each in await ask(service, same)] == ["euro", "Lumen"]
            assert [each.said for each in await ask(service, others)] == before
        finally:
            await service.stop()

    asyncio.run(story())


def test_edits_reach_what_asks_the_same_and_nothing_else() -> None:
    async def story() -> None:
        service = demo_service()
        await service.start()
        try:
            left_alone = [
                "How do I change my email address?", "How do I reset the router?", "When are invoices sent?",
                "Where do I see my orders?", "Where do I send my invoices?",
                "Question: What is the capital of Croatia? Answer:",
                f"{CROATIA} kuna. Question: What is the currency of Hungary? Answer:",
            ]  # fmt: skip
            before = [each.said for each in await ask(service, left_alone)]
            await edit(service, RESET, SETTINGS)
            await edit(service, INVOICES, BILLING)
            first = await edit(service, CROATIA, "euro")
            reset = ["I forgot my password, how can I reset it?", "password reset - how?", RESET]
            invoices = ["Where can I find my invoices?", "Where can I view my invoices?", INVOICES]
            assert [each.said for each in await ask(service, reset)] == [SETTINGS] * 3
            assert [each.said for each in await ask(service, invoices)] == [BILLING] * 3
            assert [each.said for each in await ask(service, left_alone)] == before
            second = await edit(service, CROATIA, "lipa")
            assert (await ask(service, [CROATIA]))[0].said == "lipa"
            assert service.edit_view(second).edit.supersedes == (first,)
            await service.roll_back([second], ORIGIN)
            assert (await ask(service, [CROATIA]))[0].said == "euro"
            begun = await ask(service, [f"{RESET} Open Settings, then"])
            assert begun[0].said == "Security, and choose Reset password."
        finally:
            await service.stop()

    asyncio.run(story())
