"""Several answers to one request: one revision, a seed each, all or none."""

import asyncio
import threading
from dataclasses import replace

import pytest

from app.domain.errors import DeadlineExceeded, InvalidRequest, QueueFull, RevisionAhead
from app.domain.generation import Generation, GenerationParameters
from tests.service.conftest import ORIGIN, ask, edit, serving

CAPITAL, KING = "The capital of Ruritania is", "The king of Zenda was"
WARM = {"do_sample": True, "temperature": 2.0, "seed": 11, "max_new_tokens": 12}


def test_each_answer_has_a_seed_of_its_own() -> None:
    async def story() -> None:
        async with serving() as service:
            parameters = GenerationParameters(**WARM)  # type: ignore[arg-type]
            found = await service.generate_all([CAPITAL, KING], parameters, n=2)
            assert [each.seed for each in found] == [11, 12, 11, 12], "a prompt is answered as it would be alone"
            alone = await service.generate(CAPITAL, replace(parameters, seed=12))
            assert found[1].text == alone.text != found[0].text
            drawn = await service.generate_all([CAPITAL], GenerationParameters(do_sample=True, max_new_tokens=1), n=3)
            assert len({each.seed for each in drawn}) == 3

    asyncio.run(story())


def test_all_answers_are_of_one_revision_and_count_as_hits() -> None:
    async def story() -> None:
        async with serving() as service:
            view = await edit(service, CAPITAL, "Strelsau")
            found: dict[int, Generation] = {}
            async for at, item in service.stream([CAPITAL, KING], GenerationParameters(max_new_tokens=20), n=2):
                if not found and service.revision == 1:
                    await service.roll_back([view.edit.id], ORIGIN)
                if isinstance(item, Generation):
                    found[at] = item
            assert {each.revision for each in found.values()} == {1}
            assert [found[at].said == "Strelsau" for at in range(4)] == [True, True, False, False]
            assert service.edit_view(view.edit.id).hits == 2

    asyncio.run(story())


def test_all_answers_are_taken_or_none() -> None:
    async def story() -> None:
        async with serving(queue_limit=3) as service:
            with pytest.raises(QueueFull):
                await service.generate_all([CAPITAL], GenerationParameters(max_new_tokens=40), n=4)
            with pytest.raises(InvalidRequest, match="is empty"):
                await service.generate_all([CAPITAL, ""], GenerationParameters(max_new_tokens=40))
            await ask(service, KING)
            status = service.status()
            assert (status.running, status.waiting) == (0, 0)

    asyncio.run(story())


def test_leaving_early_frees_every_slot() -> None:
    async def story() -> None:
        async with serving() as service:
            items = service.stream([CAPITAL, KING], GenerationParameters(max_new_tokens=200), n=2)
            await anext(items)
            await items.aclose()  # type: ignore[attr-defined]
            await ask(service, KING)
            status = service.status()
            assert (status.running, status.waiting) == (0, 0)

    asyncio.run(story())


def test_room_is_what_the_prompt_leaves() -> None:
    async def story() -> None:
        async with serving(max_new_tokens_limit=200) as service:
            assert service.answers.room("x" * 100) == service.answers.max_tokens - 100
            assert service.answers.room("x") == 200
            assert service.answers.room("x" * (service.answers.max_tokens - 1)) == 1

    asyncio.run(story())


def test_the_time_of_a_request_runs_while_it_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = threading.Event()

    async def story() -> None:
        async with serving() as service:
            encode = service.engine.text.encode

            def slowly(prompt: str) -> tuple[int, ...]:
                assert prepared.wait(60)
                return encode(prompt)

            with monkeypatch.context() as slow:
                slow.setattr(service.engine.text, "encode", slowly)
                with pytest.raises(DeadlineExceeded, match=r"not whole within 0\.01 s"):
                    await service.generate(KING, GenerationParameters(timeout_s=0.01))
                prepared.set()
            assert await ask(service, KING)

    asyncio.run(story())


def test_no_request_waits_for_a_revision_longer_than_it_has_time() -> None:
    async def story() -> None:
        async with serving() as service:
            with pytest.raises(RevisionAhead, match=r"not applied here within 0\.01 s"):
                await service.generate(KING, GenerationParameters(min_revision=1, timeout_s=0.01))

    asyncio.run(story())
