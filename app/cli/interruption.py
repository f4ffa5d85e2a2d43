"""Ctrl-C and SIGTERM on work with results to keep: the first signal ends the work and keeps them, a second the
process."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from app.cli import render
from app.cli.signals import Signals, end_now

PATIENCE_S = 10.0
"""The time that the rest of a stopped process, such as a fit on another thread, has to end, in seconds."""


def stopped(detail: str = "", number: int = signal.SIGINT) -> NoReturn:
    """End the command with the signal's exit code and one line on standard error."""
    say_stopped(detail, number)
    raise typer.Exit(128 + number)


def say_stopped(detail: str, number: int) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    title, code = f"Stopped by {name}", 128 + number
    if render.AS_JSON.get():
        typer.echo(json.dumps({"title": title, "detail": detail, "exit_code": code}, ensure_ascii=False), err=True)
    else:
        said = Text(render.plain(f"{title}: {detail}" if detail else f"{title}."))
        Console(stderr=True, highlight=False).print(said, soft_wrap=True)


@contextmanager
def on_ctrl_c(what_continues: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C within this context ends the command with a line that says what continues without it."""
    try:
        yield
    except KeyboardInterrupt:
        stopped(what_continues())


class Interruption(Signals):
    """The first signal cancels the work of `run`, which keeps what it has; outside of it the command ends at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._task: asyncio.Task[Any] | None = None
        self._has_run = False

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work until it ends or a signal cancels it; `number` is the signal's number."""
        self._task, self._has_run = asyncio.ensure_future(work), True
        try:
            await self._task
        except asyncio.CancelledError:
            if self.number is None:
                raise
        finally:
            self._task = None

    def end(self) -> None:
        """Finish, once everything is kept and shown. After a signal it raises typer.Exit with the signal's code."""
        if self.number is not None:
            self._end_after(PATIENCE_S, lambda: end_now(self.code))
            raise typer.Exit(self.code)

    def _first(self) -> None:
        assert self.number is not None
        if self._task is None:
            say_stopped("" if self._has_run else "before anything was measured", self.number)
            raise SystemExit(self.code)  # no library on the way may take it for an error, as it would typer.Exit
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)
