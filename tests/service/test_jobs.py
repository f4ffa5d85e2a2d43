"""Jobs over a real engine: progress comes from the fit itself, and a cancelled one leaves nothing."""

import asyncio
from typing import Any

import pytest

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest, UnknownJob
from app.service import jobs as module
from app.service.service import Service
from tests.service.conftest import ORIGIN, ask, serving

pytestmark = pytest.mark.slow
CAPITAL = "The capital of Ruritania is"
LONG = "Strelsau, where the king is crowned in the cathedral"


def started(service: Service, target: str = "Strelsau", prompt: str = CAPITAL) -> str:
    request = EditRequest(prompt=prompt, target=target)
    return service.jobs.start(lambda on_progress: service.edit([request], ORIGIN, on_progress=on_progress)).id


def test_a_job_tells_its_fit_and_ends_with_its_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY_S", 0.001)

    async def story() -> None:
        async with serving() as service:
            listening = service.jobs.listen(started(service, target=LONG))
            seen = [(job.phase, job.progress, job.seconds_left) async for job in listening]
            phases = list(dict.fromkeys(phase for phase, *_ in seen))
            assert phases == [each for each in ("waiting", "fit", "scope", "verify") if each in phases]
            assert {"fit", "verify"} <= set(phases)
            fit = [(progress, left_s) for phase, progress, left_s in seen if phase == "fit" and progress is not None]
            steps = [progress.step for progress, _ in fit]
            assert steps == sorted(steps)
            assert max(steps) > 0
            shares = [progress.done for progress, _ in fit]
            assert shares[0] < 0.5 < shares[-1] <= 1
            assert shares[-1] == max(shares)
            assert any(left_s is not None for _, left_s in fit)
            asked = [progress for phase, progress, _ in seen if phase == "verify" and progress is not None]
            assert 0 < asked[-1].step <= asked[-1].steps
            assert seen[-1][2] is None, "nothing is left of what has ended"
            assert (await ask(service, CAPITAL)).said.startswith(LONG[:8])

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
            async for job in service.jobs.listen(job_id):
                if job.phase == "fit":
                    break
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
                work = lambda on_progress: service.edit([request], ORIGIN, dry_run=True, on_progress=on_progress)  # noqa: E731
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


def test_who_listens_may_ask_to_be_told_though_there_is_nothing_new() -> None:
    async def story() -> None:
        jobs, go_on = module.Jobs(lambda: 0.0), asyncio.Event()

        async def work(_tell: object) -> None:
            await go_on.wait()

        told: list[str] = []
        async for job in jobs.listen(jobs.start(work).id, at_least_every_s=0):
            told.append(job.outcome)
            if len(told) == 3:
                go_on.set()
        assert told[:3] == ["running"] * 3
        assert told[-1] == "done"

    asyncio.run(story())
