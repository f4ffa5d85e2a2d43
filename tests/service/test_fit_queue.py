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


class FakeOwner:
    """Answers when the test says so. `bad` requests spoil the fit that they are part of."""

    def __init__(self, *, independent: bool = True) -> None:
        editor = SimpleNamespace(capabilities=SimpleNamespace(independent=independent))
        self.engine = SimpleNamespace(editors={"grace": editor}, with_scope=lambda _editor, fitted, _request: fitted)
        self.fits: list[tuple[list[str], Future[list[Fitted]], Any]] = []

    def fit(self, _editor: str, requests: Sequence[str], _beside: Edition, tell: Any) -> "Future[list[Fitted]]":
        future: Future[list[Fitted]] = Future()
        self.fits.append((list(requests), future, tell))
        return future

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


def asked(fitter: FitQueue, *requests: str, tell: Any = silent) -> "asyncio.Task[list[Fitted]]":
    return asyncio.create_task(fitter.fit("grace", list(requests), NOTHING, tell))  # type: ignore[arg-type]


def of(task: "asyncio.Task[list[Fitted]]") -> list[str]:
    return [fitted.learned["of"] for fitted in task.result()]


def run(story: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(bounded())


def test_what_waits_is_fitted_together() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        first = asked(fitter, "a")
        await asyncio.sleep(0.01)
        second, third = asked(fitter, "b", "c"), asked(fitter, "d")
        assert await owner.next() == ["a"]
        assert await owner.next() == ["b", "d", "c"], "in turns"
        assert [of(task) for task in (first, second, third)] == [["a"], ["b", "c"], ["d"]]
        assert len(owner.fits) == 2

    run(story)


def test_a_large_batch_does_not_keep_a_single_edit_waiting() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        names = [f"r{i}" for i in range(3 * AT_ONCE)]
        batch = asked(fitter, *names)
        await asyncio.sleep(0.01)
        single = asked(fitter, "single")
        assert len(await owner.next()) == AT_ONCE
        assert "single" in await owner.next()
        assert single.done()
        while not batch.done():
            await owner.next()
        assert of(batch) == names

    run(story)


def test_more_callers_than_a_round_holds_are_all_served() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        first = asked(fitter, "first")
        await asyncio.sleep(0.01)
        many = [asked(fitter, f"a{i}", f"b{i}") for i in range(AT_ONCE + 40)]
        while not all(task.done() for task in many):
            assert len(await owner.next()) <= AT_ONCE
        assert of(first) == ["first"]
        assert [of(task) for task in many] == [[f"a{i}", f"b{i}"] for i in range(AT_ONCE + 40)]

    run(story)


def test_one_that_cannot_be_fitted_spoils_nobody_elses() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        first = asked(fitter, "a")
        await asyncio.sleep(0.01)
        bad, good = asked(fitter, "bad"), asked(fitter, "b")
        for _ in range(4):
            await owner.next()
        assert (of(first), of(good)) == (["a"], ["b"])
        with pytest.raises(InvalidRequest):
            bad.result()

    run(story)


def test_who_leaves_leaves_the_queue_and_ends_a_fit_that_nobody_waits_for() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        first, waiting = asked(fitter, "a"), asked(fitter, "b")
        await asyncio.sleep(0.01)
        later = asked(fitter, "c")
        await asyncio.sleep(0.01)
        assert owner.fits[0][0] == ["a", "b"]
        first.cancel()
        await asyncio.sleep(0.01)
        assert not owner.fits[0][1].cancelled(), "another waits for it"
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert owner.fits[0][1].cancelled()
        assert await owner.next() == ["c"]
        assert of(later) == ["c"]

    run(story)


def test_a_fault_reaches_all_who_wait() -> None:
    async def story() -> None:
        owner = FakeOwner()
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        first = asked(fitter, "a")
        await asyncio.sleep(0.01)
        later = asked(fitter, "b")
        await asyncio.sleep(0.01)
        owner.fits[0][1].set_result([])  # fewer than were asked for
        await asyncio.sleep(0.01)
        for task in (first, later):
            with pytest.raises(ValueError, match="shorter"):
                task.result()
        again = asked(fitter, "c")
        assert await owner.next() == ["c"]
        assert of(again) == ["c"]

    run(story)


def test_progress_goes_to_all_who_wait_for_a_fit() -> None:
    async def story() -> None:
        owner, told = FakeOwner(), []
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        tasks = [
            asked(fitter, name, tell=lambda phase, progress, name=name: told.append((name, phase, progress.step)))
            for name in "ab"
        ]
        await asyncio.sleep(0.01)
        owner.fits[0][2](FitProgress(step=7, steps=200, loss=1.0))
        await owner.next()
        assert told[:2] == [("a", "fit", 7), ("b", "fit", 7)]
        assert {(name, phase) for name, phase, _ in told[2:]} == {("a", "scope"), ("b", "scope")}
        assert all(task.done() for task in tasks)

    run(story)


def test_editors_whose_edits_depend_on_others_are_fitted_as_asked() -> None:
    async def story() -> None:
        owner = FakeOwner(independent=False)
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        tasks = [asked(fitter, "a"), asked(fitter, "b")]
        await asyncio.sleep(0.01)
        assert [requests for requests, *_ in owner.fits] == [["a"], ["b"]]
        for task in tasks:
            task.cancel()

    run(story)


def test_of_a_caller_with_several_rounds_progress_is_that_of_all_of_them() -> None:
    async def story() -> None:
        owner = FakeOwner()
        shares: list[float] = []
        fitter = FitQueue(owner)  # type: ignore[arg-type]
        names = [str(n) for n in range(AT_ONCE * 2)]
        task = asked(fitter, *names, tell=lambda phase, progress: shares.append(progress.done) if phase == "fit" else 0)
        await asyncio.sleep(0.01)
        owner.fits[0][2](FitProgress(step=1, steps=2, loss=1.0))
        await owner.next()
        owner.fits[1][2](FitProgress(step=1, steps=2, loss=1.0, share=0.9))
        await owner.next()
        assert shares == [0.25, 0.95]
        assert len(of(task)) == AT_ONCE * 2

    run(story)
