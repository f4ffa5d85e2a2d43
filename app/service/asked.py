"""How many prompts of a verification were asked, for whoever waits for it. Knows no prompt."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from app.editors.base import Progress
from app.service.views import Tell

MANY = 64
"""Fewer prompts are answered side by side and end together: those that have ended say nothing about the others."""


@dataclass(slots=True)
class _Asked:
    tell: Tell
    done: int = 0
    of: int = 0


_ASKED: ContextVar[_Asked | None] = ContextVar("asked", default=None)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """What is asked in it, also by tasks that begin in it, is told as the progress of its verification."""
    token = _ASKED.set(_Asked(tell))
    tell("verify", None)
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def counted() -> Iterator[None]:
    """One prompt: known from its beginning on, told once it is answered. Most are known at once, as they are asked
    together."""
    asked = _ASKED.get()
    if asked is not None:
        asked.of += 1
    yield
    if asked is not None:
        asked.done += 1
        timed = asked.of >= MANY
        asked.tell("verify", Progress(step=asked.done, steps=asked.of, loss=math.nan, timed=timed))
