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

    async def fit(self, _editor: str, requests: Sequence[str], _beside: Edition, on_progress: Any) -> list[Fitted]:
        future: Future[list[Fitted]] = Future()
        self.fits.append((list(requests), future, on_progress))
        return await asyncio.wrap_future(future)

    async def begun(self, count: int) -> None:
        """Returns once so many fits have begun."""
        while len(self.fits) < count:
            await asyncio.sleep(0.001)

    async def next(self) -> list[str]:
        """Waits for a fit that is under way, and ends it; -> what it was of."""
        while not (under_way := [each for each in self.fits if not each[1].done()]):
            await asyncio.sleep(0.001)
        requests, future, _ = under_way[0]
        if any(request.startswith("bad") for request in requests):
            future.set_exception(InvalidRequest("spoilt"))
        else:
            future.set_result([Fitted(learned={"of": request}, tensors={}) for request in requests])
        return requests


def asked(queue: FitQueue, *requests: str, on_progress: Any = silent) -> "asyncio.Task[list[Fitted]]":
    return asyncio.create_task(queue.fit("grace", list(requests), NOTHING, on_progress))  # type: ignore[arg-type]


async def of(task: "asyncio.Task[list[Fitted]]") -> list[str]:
    """The requests that were fitted for a caller, once all are."""
    return [fitted.learned["of"] for fitted in await task]


def run(story: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


def test_what_waits_is_fitted_together() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await engine.begun(1)
        second, third = asked(queue, "b", "c"), asked(queue, "d")
        assert await engine.next() == ["a"]
        assert await engine.next() == ["b", "d", "c"], "in turns"
        assert [await of(task) for task in (first, second, third)] == [["a"], ["b", "c"], ["d"]]
        assert len(engine.fits) == 2

    run(story)


def test_a_large_batch_does_not_keep_a_single_edit_waiting() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        names = [f"r{i}" for i in range(3 * AT_ONCE)]
        batch = asked(queue, *names)
        await engine.begun(1)
        single = asked(queue, "single")
        assert len(await engine.next()) == AT_ONCE
        assert "single" in await engine.next()
        assert await of(single) == ["single"]
        assert not batch.done()
        rest = [await engine.next() for _ in range(2)]
        assert list(map(len, rest)) == [AT_ONCE, 1]
        assert await of(batch) == names

    run(story)


def test_more_callers_than_a_round_holds_are_all_served() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "first")
        await engine.begun(1)
        many = [asked(queue, f"a{i}", f"b{i}") for i in range(AT_ONCE + 40)]
        rounds = [len(await engine.next()) for _ in range(5)]
        assert rounds == [1, AT_ONCE, AT_ONCE, AT_ONCE, 2 * 40 - AT_ONCE]
        assert await of(first) == ["first"]
        assert [await of(task) for task in many] == [[f"a{i}", f"b{i}"] for i in range(AT_ONCE + 40)]

    run(story)


def test_one_that_cannot_be_fitted_spoils_nobody_elses() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await engine.begun(1)
        bad, good = asked(queue, "bad"), asked(queue, "b")
        assert [await engine.next() for _ in range(4)] == [["a"], ["bad", "b"], ["bad"], ["b"]]
        assert (await of(first), await of(good)) == (["a"], ["b"])
        with pytest.raises(InvalidRequest):
            await bad

    run(story)


def test_who_leaves_leaves_the_queue_and_ends_a_fit_that_nobody_waits_for() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first, waiting = asked(queue, "a"), asked(queue, "b")
        await engine.begun(1)
        later = asked(queue, "c")
        assert engine.fits[0][0] == ["a", "b"]
        first.cancel()
        await asyncio.wait([first])
        await asyncio.sleep(0.01)
        assert not engine.fits[0][1].cancelled(), "another waits for it"
        waiting.cancel()
        await engine.begun(2)
        assert engine.fits[0][1].cancelled()
        assert await engine.next() == ["c"]
        assert await of(later) == ["c"]

    run(story)


def test_a_fault_reaches_all_who_wait() -> None:
    async def story() -> None:
        engine = FakeEngine()
        queue = FitQueue(engine)  # type: ignore[arg-type]
        first = asked(queue, "a")
        await engine.begun(1)
        later = asked(queue, "b")
        await asyncio.sleep(0)  # it waits for the next round
        engine.fits[0][1].set_result([])  # fewer than were asked for
        for task in (first, later):
            with pytest.raises(ValueError, match="shorter"):
                await task
        again = asked(queue, "c")
        assert await engine.next() == ["c"]
        assert await of(again) == ["c"]

    run(story)


def test_progress_goes_to_all_who_wait_for_a_fit() -> None:
    async def story() -> None:
        engine, told = FakeEngine(), []
        queue = FitQueue(engine)  # type: ignore[arg-type]
        tasks = [
            asked(queue, name, on_progress=lambda phase, progress, name=name: told.append((name, phase, progress.step)))
            for name in "ab"
        ]
        await engine.begun(1)
        engine.fits[0][2](FitProgress(step=7, steps=200, loss=1.0))
        await engine.next()
        assert [await of(task) for task in tasks] == [["a"], ["b"]]
        assert told[:2] == [("a", "fit", 7), ("b", "fit", 7)]
        assert {(name, phase) for name, phase, _ in told[2:]} == {("a", "scope"), ("b", "scope")}

    run(story)


def test_editors_whose_edits_depend_on_others_are_fitted_as_asked() -> None:
    async def story() -> None:
        engine = FakeEngine(independent=False)
        queue = FitQueue(engine)  # type: ignore[arg-type]
        tasks = [asked(queue, "a"), asked(queue, "b")]
        await engine.begun(2)
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
        task = asked(
            queue, *names, on_progress=lambda phase, progress: shares.append(progress.done) if phase == "fit" else 0
        )
        await engine.begun(1)
        engine.fits[0][2](FitProgress(step=1, steps=2, loss=1.0))
        await engine.next()
        await engine.begun(2)
        engine.fits[1][2](FitProgress(step=1, steps=2, loss=1.0, share=0.9))
        await engine.next()
        assert len(await of(task)) == AT_ONCE * 2
        assert shares == [0.25, 0.95]

    run(story)
