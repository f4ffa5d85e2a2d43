"""Work in progress is counted while it runs; a stop waits for it, then ends it with an error that says so."""

import asyncio

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import RequestCancelled
from app.domain.generation import GenerationParameters
from app.service.work_in_progress import WorkInProgress
from tests.service.conftest import ORIGIN, serving


def test_it_is_counted_by_kind_until_it_ends() -> None:
    async def story() -> None:
        work = WorkInProgress(lambda: None)
        with work.counted("answer"), work.counted("answer"), work.counted("edit"):
            assert (work.count("answer"), work.count("edit")) == (2, 1)
            assert not await work.drained(0.01)
        assert (work.count("answer"), work.count("edit")) == (0, 0)
        assert await work.drained(0)

    asyncio.run(story())


def test_an_edit_that_is_cut_short_ends_with_an_error_and_its_task_goes_on() -> None:
    async def story() -> None:
        work = WorkInProgress(lambda: None)

        async def edit() -> str:
            with pytest.raises(RequestCancelled, match="stopping"), work.counted("edit"):
                await asyncio.Event().wait()
            await asyncio.sleep(0)  # as the code that answers the client with the error does
            return "answered"

        task = asyncio.create_task(edit())
        await asyncio.sleep(0)
        work.cut_short()
        work.cut_short()  # a second one changes nothing
        assert await task == "answered"
        assert not task.cancelling()

    asyncio.run(story())


def test_cancelling_an_edit_does_not_report_a_stop_of_the_server() -> None:
    async def story() -> None:
        work = WorkInProgress(lambda: None)

        async def edit() -> None:
            with work.counted("edit"):
                await asyncio.Event().wait()

        task = asyncio.create_task(edit())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


def test_answers_and_edits_of_a_service_are_cut_short_and_nothing_new_is_taken() -> None:
    async def story() -> None:
        async with serving() as service:
            begun = asyncio.Event()

            async def answer() -> None:
                parameters = GenerationParameters(max_new_tokens=200, ignore_eos=True)
                async for _ in service.stream(["Once upon a time"], parameters):
                    begun.set()

            answering = asyncio.create_task(answer())
            await begun.wait()
            request = EditRequest(prompt="The capital of Ruritania is", target="Strelsau, as everybody knows")
            fitting = asyncio.Event()
            editing = asyncio.create_task(service.edit([request], ORIGIN, on_progress=lambda *_: fitting.set()))
            await fitting.wait()
            assert (service.work_in_progress.count("answer"), service.work_in_progress.count("edit")) == (1, 1)
            service.cut_short()
            for task in (answering, editing):
                with pytest.raises(RequestCancelled, match="stopping"):
                    await task
            assert await service.work_in_progress.drained(5)
            with pytest.raises(RequestCancelled, match="stopping"):
                await service.edit([request], ORIGIN)
            assert service.revision == 0

    asyncio.run(story())
