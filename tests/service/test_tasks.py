"""Work that is waited for has ended when the wait ends, however often the caller is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.service.tasks import together, uninterrupted


@pytest.mark.parametrize("wait", [uninterrupted, together])
def test_work_has_ended_however_often_its_caller_is_cancelled(wait: Callable[[Awaitable[Any]], Any]) -> None:
    async def story() -> None:
        go_on, ended = asyncio.Event(), False

        async def work() -> None:
            nonlocal ended
            try:
                await go_on.wait()
            finally:
                await go_on.wait()  # an end that takes a while
                ended = True

        caller = asyncio.create_task(wait(work()))
        for _ in range(3):
            await asyncio.sleep(0.01)
            caller.cancel()
        await asyncio.sleep(0.01)
        assert not caller.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended

    asyncio.run(story())
