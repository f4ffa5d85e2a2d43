"""The progress of a server's start: a bar on a terminal, plain lines in a pipe or a file."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.domain.progress import OnStep

PERIOD_S = 5.0
"""The interval between two plain lines about the same work, in seconds."""


class StartProgress:
    """The display of one piece of work at a time, from one `on_step` to the next. Use it as a context manager.

    With a `note`, for programs, it is called in place of all display, as often as a plain line would be printed."""

    def __init__(
        self, console: Console, clock: Callable[[], float] = time.monotonic, note: OnStep | None = None
    ) -> None:
        self._console, self._clock, self._note = console, clock, note
        self._has_bar = console.is_terminal and note is None
        self._began = clock()
        self._what = ""
        self._said_at = 0.0
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        # the log's handler keeps the stream that it is given, which must not be one that ends with the bar
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=None)

    @property
    def doing(self) -> str:
        """The work that was reported last."""
        return self._what

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def on_step(self, what: str, done: int, of: int) -> None:
        """Report the current work and its progress; 0 of 0 if that is unknown."""
        is_new, self._what = what != self._what, what
        if self._has_bar:
            if is_new:
                self._bar.reset(self._task, description=f"{what[:1].upper()}{what[1:]}", total=of or None)
            self._bar.update(self._task, completed=done, total=of or None)
        elif is_new or self._clock() - self._said_at >= PERIOD_S:
            self._said_at = self._clock()
            if self._note is not None:
                self._note(what, done, of)
                return
            how_far = f" {done:,}/{of:,}" if of else ""
            self._console.print(f"[{self.seconds:5.1f} s] {what}{how_far}", markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar; further output is printed below."""
        if self._has_bar:
            self._bar.stop()
