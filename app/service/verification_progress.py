"""The count of prompts that a verification has asked, for clients that wait for it. Independent of the prompts."""

import math
from asyncio import Future
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from app.editors.base import FitProgress
from app.service.views import OnProgress

MANY = 64
"""The least number of prompts for which the remaining time is estimated. Fewer are answered side by side and end
together, so that those that have ended say nothing about the others."""


@dataclass(slots=True)
class _PromptCount:
    on_progress: OnProgress
    done: int = 0
    of: int = 0


_COUNT: ContextVar[_PromptCount | None] = ContextVar("prompt_count", default=None)


@contextmanager
def progress_of_prompts(on_progress: OnProgress) -> Iterator[None]:
    """Report the prompts asked within this context, also by tasks started in it, as the progress of a verification."""
    token = _COUNT.set(_PromptCount(on_progress))
    on_progress("verify", None)
    try:
        yield
    finally:
        _COUNT.reset(token)


def prompts_begun(number: int) -> Callable[[Future[Any]], None]:
    """Count so many prompts as known; the result is called with each one's answer when that has ended, and counts it
    as done. Most are known at once, because they are asked together."""
    count = _COUNT.get()
    if count is not None:
        count.of += number

    def note_end(answer: Future[Any]) -> None:
        if count is not None and not answer.cancelled():
            count.done += 1
            timed = count.of >= MANY
            count.on_progress("verify", FitProgress(step=count.done, steps=count.of, loss=math.nan, timed=timed))

    return note_end
