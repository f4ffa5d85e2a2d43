"""Ctrl-C and SIGTERM on work that has something to keep: the first ends it with what it has, a second the process."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Self

import typer
from rich.console import Console
from rich.text import Text

from app.cli import render

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 10.0
"""What is left of a stopped process, such as a fit on another thread, gets to end in."""
TWICE_S = 0.5
"""A signal that comes again so soon is the same one: `timeout` and others send it to a process and to its group."""


def stopped(detail: str = "", number: int = signal.SIGINT) -> NoReturn:
    """Ends the command with the signal's exit code and one line, on standard error."""
    tell_stopped(detail, number)
    raise typer.Exit(128 + number)


def tell_stopped(detail: str, number: int) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    title, code = f"Stopped by {name}", 128 + number
    if render.AS_JSON.get():
        typer.echo(json.dumps({"title": title, "detail": detail, "exit_code": code}, ensure_ascii=False), err=True)
    else:
        said = Text(render.plain(f"{title}: {detail}" if detail else f"{title}."))
        Console(stderr=True, highlight=False).print(said, soft_wrap=True)


@contextmanager
def on_ctrl_c(tell: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C in it ends the command with a line that says what goes on without it."""
    try:
        yield
    except KeyboardInterrupt:
        stopped(tell())


class Stopping:
    """While it is entered it handles both signals. Before `run` is called there is nothing to keep, and a signal ends
    the command at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stopped_at: float | None = None
        self.number: signal.Signals | None = None
        self._task: asyncio.Task[Any] | None = None
        self._before: list[Any] = []
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._stop) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, before in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, before)

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it has ended, or until a signal has cancelled it: `number` tells which."""
        self._task = asyncio.ensure_future(work)
        try:
            await self._task
        except asyncio.CancelledError:
            if self.number is None:
                raise
        finally:
            self._task = None

    def end(self) -> None:
        """To be called once everything is kept and shown. Raises typer.Exit with the signal's code after a signal."""
        if self.number is not None:
            self._timer = threading.Timer(PATIENCE_S, end_now, [self.code])
            self._timer.daemon = True
            self._timer.start()
            raise typer.Exit(self.code)

    @property
    def code(self) -> int:
        return 0 if self.number is None else 128 + self.number

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._stopped_at is not None:
            if self._clock() >= self._stopped_at + TWICE_S:
                end_now(128 + number)
            return
        self._stopped_at = self._clock()
        self.number = signal.Signals(number)
        if self._task is None:
            typer.echo(f"Stopped by {self.number.name} before anything was measured.", err=True)
            raise typer.Exit(self.code)
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def end_now(code: int) -> None:
    """End the process, whatever it is doing: callable from a signal handler and from any thread."""
    with suppress(Exception):  # the signal may have come amid a write
        sys.stdout.flush()
    os._exit(code)
