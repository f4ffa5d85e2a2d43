"""The progress of a run: a status line on a terminal; elsewhere, such as in a pipe or a file, lines with the time."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Self

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TaskID
from rich.status import Status
from rich.text import Text

from app.cli import render

SPACED_S = 2.0
"""The least time between two lines of one kind, in seconds, so that thousands of quick edits do not fill the output."""


class RunProgress:
    """The display of a run. `on_step` takes the step that begins, `figure` each new figure. Lines are flushed at
    once."""

    def __init__(self) -> None:
        self._console = render.out()
        self._status: Status | None = None
        self._part = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, part: str) -> None:
        """Set the section or candidate with which the lines begin from now on."""
        self._part = part

    def on_step(self, what: str) -> None:
        if self._status is None:
            self._line(what)
        else:
            self._status.update(Text(self._text(what)))

    def figure(self, what: str) -> None:
        self._line(what)

    def _text(self, what: str) -> str:
        return render.plain(f"{self._part}: {what}" if self._part else what)

    def _line(self, what: str) -> None:
        _write_line(self._console, self._text(what))


class CountProgress:
    """The count of completed things: a bar on a terminal; elsewhere a line for each, but at most one of a kind in
    SPACED_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = render.out(), clock
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._written_at: dict[str, float] = {}
        """The time of the last line of each kind, which is the line without its digits."""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Bar(transient=True, console=self._console)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_step(self, what: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=render.plain(what), completed=done, total=total)
            return
        kind = "".join(char for char in what if not char.isdigit())
        now = self._clock()
        if now >= self._written_at.get(kind, now - SPACED_S) + SPACED_S:
            self._written_at[kind] = now
            _write_line(self._console, f"{what} ({done} of {total})")


def _write_line(console: Console, what: str) -> None:
    console.print(Text(f"{datetime.now():%H:%M:%S}  {what}"), soft_wrap=True)
    console.file.flush()
