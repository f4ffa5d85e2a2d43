"""What is under way: a status line on a terminal; elsewhere, as in a pipe or a file, a line each with the time."""

from datetime import datetime
from typing import Self

from rich.status import Status
from rich.text import Text

from app.cli import render


class Progress:
    """`tell` is told what begins, `figure` each figure that comes. Lines are written out at once."""

    def __init__(self) -> None:
        self._console = render.out()
        self._status: Status | None = None
        self.part = ""
        """What the lines begin with: a section, a candidate."""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, what: str) -> None:
        if self._status is None:
            self._line(what)
        else:
            self._status.update(Text(self._told(what)))

    def figure(self, what: str) -> None:
        self._line(what)

    def _told(self, what: str) -> str:
        return render.plain(f"{self.part}: {what}" if self.part else what)

    def _line(self, what: str) -> None:
        self._console.print(Text(f"{datetime.now():%H:%M:%S}  {self._told(what)}"), soft_wrap=True)
        self._console.file.flush()
