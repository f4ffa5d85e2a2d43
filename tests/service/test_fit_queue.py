"""Fits that wait for one another: together in rounds, apart where one spoils them, gone when nobody waits."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from app.domain.errors import InvalidRequest
from app.editors.base import FitProgress, Fitted
from app.engine.editions import Edition
from app.service.fit_queue import AT_ONCE, FitQueue
from app.service.views import silent

NOTHING = Edition("default", 0, ())


class FakeEngine:
    """Answers when the test says so. `bad` requests spoil the fit that they are part of."""

    def __init__(self, *, independent: bool = True) -> None:
        self._capabilities = SimpleNamespace(independent=independent)
        self.fits: list[tuple[list[str], Future[list[Fitted]], Any]] = []

    def capabilities(self, _editor: str) -> SimpleNamespace:
        return self._capabilities

    def with_scope(self, _editor: str, fitted: Fitted, _request: str) -> Fitted:
        return fitted

    async def fit(self, _editor: str, requests: Sequence[str], _beside: Edition, tell: Any) -> list[Fitted]:
        future: Future[list[Fitted]] = Future()
        self.fits.append((list(requests), future, tell))
        return await asyncio.wrap_future(future)

    async def next(self) -> list[str]:
        """Ends the newest fit; -> what it was of."""
        await asyncio.sleep(0.01)
        requests, future, _ = self.fits[-1]
        if any(request.startswith("bad") for request in requests):
            future.set_exception(InvalidRequest("spoilt"))
        else:
            future.set_result([Fitted(learned={"of": request}, tensors={}) for request in requests])
        await asyncio.sleep(0.01)
        return requests


def asked(queue: FitQueue, *requests: str, tell: Any = silent) -> "asyncio.Task[list[Fitted]]":
    return asyncio.create_task(queue.fit("grace", list(requests), NOTHING, tell))  # type: ignore[arg-type]


def of(task: "asyncio.Task[list[Fitted]]") -> list[str]:
    return [fitted.learned["of"] for fitted in task.result()]


def run(story: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(bounded())


def test_what_waits_is_fitted_together() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await asyncio.sleep(0.01)
        second, third = asked(queue, "b", "c"), asked(queue, "d")
        assert await engine.next() == ["a"]
        assert await engine.next() == ["b", "d", "c"], "in turns"
        assert [of(task) for task in (first, second, third)] == [["a"], ["b", "c"], ["d"]]
        assert len(engine.fits) == 2

    run(story)


def test_a_large_batch_does_not_keep_a_single_edit_waiting() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        names = [f"r{i}" for i in range(3 * AT_ONCE)]
        batch = asked(queue, *names)
        await asyncio.sleep(0.01)
        single = asked(queue, "single")
        assert len(await engine.next()) == AT_ONCE
        assert "single" in await engine.next()
        assert single.done()
        while not batch.done():
            await engine.next()
        assert of(batch) == names

    run(story)


def test_more_callers_than_a_round_holds_are_all_served() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "first")
        await asyncio.sleep(0.01)
        many = [asked(queue, f"a{i}", f"b{i}") for i in range(AT_ONCE + 40)]
        while not all(task.done() for task in many):
            assert len(await engine.next()) <= AT_ONCE
        assert of(first) == ["first"]
        assert [of(task) for task in many] == [[f"a{i}", f"b{i}"] for i in range(AT_ONCE + 40)]

    run(story)


def test_one_that_cannot_be_fitted_spoils_nobody_elses() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await asyncio.sleep(0.01)
        bad, good = asked(queue, "bad"), asked(queue, "b")
        for _ in range(4):
            await engine.next()
        assert (of(first), of(good)) == (["a"], ["b"])
        with pytest.raises(InvalidRequest):
            bad.result()

    run(story)


def test_who_leaves_leaves_the_queue_and_ends_a_fit_that_nobody_waits_for() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first, waiting = asked(queue, "a"), asked(queue, "b")
        await asyncio.sleep(0.01)
        later = asked(queue, "c")
        await asyncio.sleep(0.01)
        assert engine.fits[0][0] == ["a", "b"]
        first.cancel()
        await asyncio.sleep(0.01)
        assert not engine.fits[0][1].cancelled(), "another waits for it"
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert engine.fits[0][1].cancelled()
        assert await engine.next() == ["c"]
        assert of(later) == ["c"]

    run(story)


def test_a_fault_reaches_all_who_wait() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await asyncio.sleep(0.01)
        later = asked(queue, "b")
        await asyncio.sleep(0.01)
        engine.fits[0][1].set_result([])  # fewer than were asked for
        await asyncio.sleep(0.01)
        for task in (first, later):
            with pytest.raises(ValueError, match="shorter"):
                task.result()
        again = asked(queue, "c")
        assert await engine.next() == ["c"]
        assert of(again) == ["c"]

    run(story)


def test_progress_goes_to_all_who_wait_for_a_fit() -> None:
    async def story() -> None:
        engine, told = FakeEngine(), []
        queue = FitQueue(engine)  # type: ignore[arg-type]
        tasks = [
            asked(queue, name, tell=lambda phase, progress, name=name: told.append((name, phase, progress.step)))
            for name in "ab"
        ]
        await asyncio.sleep(0.01)
        engine.fits[0][2](FitProgress(step=7, steps=200, loss=1.0))
        await engine.next()
        assert told[:2] == [("a", "fit", 7), ("b", "fit", 7)]
        assert {(name, phase) for name, phase, _ in told[2:]} == {("a", "scope"), ("b", "scope")}
        assert all(task.done() for task in tasks)

    run(story)


def test_editors_whose_edits_depend_on_others_are_fitted_as_asked() -> None:
    async def story() -> None:
        engine = FakeEngine(independent=False)
        queue = FitQueue(engine)  # type: ignore[arg-type]
        tasks = [asked(queue, "a"), asked(queue, "b")]
        await asyncio.sleep(0.01)
        assert [requests for requests, *_ in engine.fits] == [["a"], ["b"]]
        for task in tasks:
            task.cancel()

    run(story)


def test_of_a_caller_with_several_rounds_progress_is_that_of_all_of_them() -> None:
    async def story() -> None:
        engine = FakeEngine()
        shares: list[float] = []
        queue = FitQueue(engine)  # type: ignore[arg-type]
        names = [str(n) for n in range(AT_ONCE * 2)]
        task = asked(queue, *names, tell=lambda phase, progress: shares.append(progress.done) if phase == "fit" else 0)
        await asyncio.sleep(0.01)
        engine.fits[0][2](FitProgress(step=1, steps=2, loss=1.0))
        await engine.next()
        engine.fits[1][2](FitProgress(step=1, steps=2, loss=1.0, share=0.9))
        await engine.next()
        assert shares == [0.25, 0.95]
        assert len(of(task)) == AT_ONCE * 2

    run(story)
