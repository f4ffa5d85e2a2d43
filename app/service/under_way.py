"""What is under way for clients: counted, waited for, and ended where there is no more time. Free of torch."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.errors import RequestCancelled

Kind = Literal["answer", "edit"]
DRAIN_S = 30.0
STOPPING = "stopping"
"""Why nothing new is taken while the server ends."""


@dataclass(eq=False, slots=True)
class _Work:
    kind: Kind
    task: "asyncio.Task[Any] | None"
    cut: bool = False


def refused(why: str) -> RequestCancelled:
    """The error of a request that is not carried out because of how the server stands."""
    return RequestCancelled(
        f"The server is {why}: ask again later. See /help/troubleshooting#the-server-is-not-ready.", retry_after_s=1
    )


class UnderWay:
    """Answers and edits that a stop waits for. `end_answers` ends all answers with an error each."""

    def __init__(self, end_answers: Callable[[], None]) -> None:
        self._end_answers = end_answers
        self._works: set[_Work] = set()

    @contextmanager
    def counted(self, kind: Kind) -> Iterator[None]:
        """Raises RequestCancelled, in place of the cancellation, where an edit is cut short."""
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
        """Whether all of it has ended within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._works:
                    await asyncio.sleep(0.02)
        return not self._works

    def cut_short(self) -> None:
        """End what still runs, each with the error that the server stops. An append under way is ended first: who asked
        for it may find its edit live, as after any 503."""
        self._end_answers()
        for work in self._works:
            if work.kind == "edit" and work.task is not None and not work.cut:
                work.cut = True
                work.task.cancel()
