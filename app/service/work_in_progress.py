"""The work under way for clients: counting it, waiting for it, and ending it when time runs out. Does not import
torch."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.errors import RequestCancelled

Kind = Literal["answer", "edit"]
DRAIN_S = 30.0
STOPPING = "stopping"
"""The reason for refusing new work while the server ends."""


@dataclass(eq=False, slots=True)
class _Work:
    kind: Kind
    task: "asyncio.Task[Any] | None"
    cut: bool = False


def refused(why: str) -> RequestCancelled:
    """The error of a request that is not carried out because of the server's state."""
    return RequestCancelled(
        f"The server is {why}: ask again later. See /help/troubleshooting#the-server-is-not-ready.", retry_after_s=1
    )


class WorkInProgress:
    """The answers and edits that a stop waits for. `end_answers` ends every answer with an error."""

    def __init__(self, end_answers: Callable[[], None]) -> None:
        self._end_answers = end_answers
        self._works: set[_Work] = set()

    @contextmanager
    def counted(self, kind: Kind) -> Iterator[None]:
        """Count a piece of work while it runs. An edit that is cut short raises RequestCancelled instead of the
        cancellation."""
        work = _Work(kind, asyncio.current_task())
        self._works.add(work)
        try:
            yield
        except asyncio.CancelledError:
            if not work.cut or work.task is None:
                raise
            work.task.uncancel()
            raise refused(STOPPING) from None
        finally:
            self._works.discard(work)

    def count(self, kind: Kind) -> int:
        return sum(work.kind == kind for work in self._works)

    async def drained(self, most_s: float = DRAIN_S) -> bool:
        """Wait for all work to end, for at most `most_s` seconds; returns whether it did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._works:
                    await asyncio.sleep(0.02)
        return not self._works

    def cut_short(self) -> None:
        """End all remaining work, each piece with the error that the server stops. An append under way is finished
        first: its client may find the edit live, as after any 503."""
        self._end_answers()
        for work in self._works:
            if work.kind == "edit" and work.task is not None and not work.cut:
                work.cut = True
                work.task.cancel()
