"""Ctrl-C and SIGTERM, shared by the server and by commands: the first signal is handled, a second ends the process."""

import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TWICE_S = 0.5
"""A signal that comes again so soon is the same one: `timeout` and others send it to a process and to its group."""


class Signals(ABC):
    """Handles both signals while it is entered. Subclasses say in `_first` what the first one does; a later one ends
    the process at once, with the signal's exit code."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_at = 0.0
        self._before: list[Any] = []
        self._timer: threading.Timer | None = None
        self.number: signal.Signals | None = None
        """The first signal, once it has come."""

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._hear) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, before in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, before)

    @property
    def code(self) -> int:
        """The exit code: 0 without a signal."""
        return 0 if self.number is None else 128 + self.number

    @abstractmethod
    def _first(self) -> None:
        """Handle the first signal."""

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            if self._clock() >= self._first_at + TWICE_S:
                end_now(128 + number)
            return
        self._first_at = self._clock()
        self.number = signal.Signals(number)
        self._first()

    def _end_after(self, seconds: float, end: Callable[[], None]) -> None:
        """Calls `end` from another thread, unless the block has been left by then."""
        self._timer = threading.Timer(seconds, end)
        self._timer.daemon = True
        self._timer.start()


def end_now(code: int) -> None:
    """Ends the process, whatever it is doing: callable from a signal handler and from any thread."""
    with suppress(Exception):  # the signal may have come amid a write
        sys.stdout.flush()
    os._exit(code)
