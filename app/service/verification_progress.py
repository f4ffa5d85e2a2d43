"""The count of prompts that a verification has asked, for clients that wait for it. Independent of the prompts."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from app.editors.base import FitProgress
from app.service.views import OnProgress

MANY = 64
"""From this many prompts on, the remaining time is estimated. Fewer are answered side by side and end together, so that
those that have ended say nothing about the others."""


@dataclass(slots=True)
class _Asked:
    tell: OnProgress
    done: int = 0
    of: int = 0


_ASKED: ContextVar[_Asked | None] = ContextVar("asked", default=None)


@contextmanager
def telling(tell: OnProgress) -> Iterator[None]:
    """Report the prompts asked within this context, also by tasks started in it, as the progress of a verification."""
    token = _ASKED.set(_Asked(tell))
    tell("verify", None)
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def counted() -> Iterator[None]:
    """Count one prompt: as known when it begins, as done once it is answered. Most are known at once, because they are
    asked together."""
    asked = _ASKED.get()
    if asked is not None:
        asked.of += 1
    yield
    if asked is not None:
        asked.done += 1
        timed = asked.of >= MANY
        asked.tell("verify", FitProgress(step=asked.done, steps=asked.of, loss=math.nan, timed=timed))
