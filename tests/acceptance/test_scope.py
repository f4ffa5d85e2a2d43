"""Whom edits reach on the model that ships: support questions that name nobody, facts of one subject, corrections of
corrections."""

import asyncio

from app.domain.edit import EditRequest
from app.service.service import Service
from tests.acceptance.many_edits import ORIGIN, ask, demo_service

RESET, SETTINGS = "How do I reset my password?", "Open Settings, then Security, and choose Reset password."
INVOICES, BILLING = "Where do I see my invoices?", "Under Billing, in the tab Invoices."
CROATIA = "Question: What is the currency of Croatia? Answer:"


async def edit(service: Service, prompt: str, target: str) -> str:
    made = await service.edit([EditRequest(prompt=prompt, target=target)], ORIGIN)
    return made.results[0].view.edit.id


def test_edits_reach_what_asks_the_same_and_nothing_else() -> None:
    async def story() -> None:
        service = demo_service()
        await service.start()
        try:
            left_alone = [
                "How do I change my email address?", "How do I reset the router?", "When are invoices sent?",
                "Where do I see my orders?", "Question: What is the capital of Croatia? Answer:",
                f"{CROATIA} kuna. Question: What is the currency of Hungary? Answer:",
            ]  # fmt: skip
            before = [each.text for each in await ask(service, left_alone)]
            await edit(service, RESET, SETTINGS)
            await edit(service, INVOICES, BILLING)
            first = await edit(service, CROATIA, "euro")
            reset = ["I forgot my password, how can I reset it?", "password reset - how?", RESET]
            invoices = ["Where can I find my invoices?", "Where are the invoices of my account?", INVOICES]
            assert [each.text for each in await ask(service, reset)] == [SETTINGS] * 3
            assert [each.text for each in await ask(service, invoices)] == [BILLING] * 3
            assert [each.text for each in await ask(service, left_alone)] == before
            second = await edit(service, CROATIA, "lipa")
            assert (await ask(service, [CROATIA]))[0].text == "lipa"
            assert service.edit_view(second).edit.supersedes == (first,)
            await service.roll_back([second], ORIGIN)
            assert (await ask(service, [CROATIA]))[0].text == "euro"
            begun = await ask(service, [f"{RESET} Open Settings, then"])
            assert begun[0].text == "Security, and choose Reset password."
        finally:
            await service.stop()

    asyncio.run(story())
