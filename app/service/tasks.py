"""Ways to wait for work: to its end however often the caller is cancelled, or for several pieces that end together."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any


async def uninterrupted(work: Awaitable[None]) -> None:
    """Await to the end however often the caller is cancelled: an append under way is neither abandoned nor
    forgotten."""
    task = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interruption = error
    task.result()
    if interruption is not None:
        raise interruption


async def together(*work: Awaitable[Any]) -> list[Any]:
    """The results of all. The first error ends the others, and is raised once they have ended: what they would still
    ask of the engine under a trial, whose rows are released then, would fail there for everybody."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        if tasks:  # not gather, which hands each cancellation on to work that is ending already
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        await cancelled(tasks)


async def cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them, and wait until all have ended, however often the caller is cancelled."""
    for task in tasks:
        task.cancel()
    if tasks:
        await uninterrupted(_ended(tasks))


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
