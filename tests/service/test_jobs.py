"""Jobs over a real engine: progress comes from the fit itself, and a cancelled one leaves nothing."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest, UnknownJob
from app.service import jobs as module
from app.service.service import Service
from tests.service.conftest import ORIGIN, ask, serving

CAPITAL = "The capital of Ruritania is"


def started(service: Service, target: str = "Strelsau", prompt: str = CAPITAL) -> str:
    request = EditRequest(prompt=prompt, target=target)
    return service.jobs.start(lambda tell: service.edit([request], ORIGIN, tell=tell)).id


def test_a_job_tells_its_fit_and_ends_with_its_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLD_EVERY_S", 0.001)

    async def story() -> None:
        async with serving() as service:
            seen = [(job.phase, job.progress) async for job in service.jobs.listen(started(service))]
            phases = list(dict.fromkeys(phase for phase, _ in seen))
            assert phases[-2:] == ["fit", "verify"]
            steps = [progress.step for phase, progress in seen if phase == "fit" and progress is not None]
            assert steps == sorted(steps)
            assert max(steps) > 0
            assert (await ask(service, CAPITAL)).said == "Strelsau"

    asyncio.run(story())


def test_a_cancelled_job_leaves_nothing() -> None:
    async def story() -> None:
        async with serving() as service:
            before = (await ask(service, CAPITAL)).said
            job_id = started(service, target="a very long answer that takes its time to be learned " * 3)
            async for job in service.jobs.listen(job_id):
                if job.phase == "fit":
                    break
            assert (await service.jobs.cancel(job_id)).outcome == "cancelled"
            after = await ask(service, CAPITAL)
            assert (after.said, after.revision) == (before, 0)
            assert service.engine.editions.owned() == []
            assert service.engine.idle

    asyncio.run(story())


def test_a_job_that_fails_keeps_its_error_and_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 1)

    async def story() -> None:
        async with serving() as service:
            ids = [started(service, prompt="x" * 10_000) for _ in range(3)]
            jobs: list[Any] = []
            for job_id in ids:
                try:
                    jobs.append([job async for job in service.jobs.listen(job_id)][-1])
                except UnknownJob:
                    jobs.append(None)
            assert isinstance(jobs[-1].error, InvalidRequest)
            with pytest.raises(UnknownJob, match="the last 1"):
                service.jobs.job(ids[0])

    asyncio.run(story())


def test_stopping_lets_a_job_end() -> None:
    async def story() -> None:
        async with serving() as service:
            job_id = started(service)
            await asyncio.sleep(0.05)
        assert service.jobs.job(job_id).outcome == "done"

    asyncio.run(story())


def test_a_job_that_is_cancelled_before_it_began_is_over() -> None:
    async def story() -> None:
        async with serving() as service:
            job_id = started(service)
            assert (await service.jobs.cancel(job_id)).outcome == "cancelled"
            assert [job.outcome async for job in service.jobs.listen(job_id)] == ["cancelled"]

    asyncio.run(story())


def test_a_preview_goes_with_the_recent_prompts_that_it_tells_of() -> None:
    async def story() -> None:
        async with serving(recent_prompts=4) as service:
            request = EditRequest(prompt=CAPITAL, target="Strelsau")

            def preview() -> str:
                work = lambda tell: service.edit([request], ORIGIN, dry_run=True, tell=tell)  # noqa: E731
                return service.jobs.start(work, previews=["default"]).id

            ended, kept, under_way = preview(), started(service, prompt="The king of Zenda is"), ""
            for job_id in (ended, kept):
                assert [job async for job in service.jobs.listen(job_id)][-1].outcome == "done"
            under_way = preview()
            await service.jobs.forget_previews("another")
            assert service.jobs.job(ended).outcome == "done"
            await service.jobs.forget_previews("default")
            for job_id in (ended, under_way):
                with pytest.raises(UnknownJob):
                    service.jobs.job(job_id)
            assert service.jobs.job(kept).outcome == "done"

    asyncio.run(story())
