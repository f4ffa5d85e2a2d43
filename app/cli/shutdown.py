"""Handling of Ctrl-C and SIGTERM on a server: the first signal lets running work end, for a limited time; a second one
ends the process at once."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from app.cli.interruption import say_stopped
from app.cli.signals import Signals, end_now

LOADING_S = 2.0
"""The time that interrupted loading has for cleaning up, in seconds. Nothing can be lost: nothing was acknowledged
yet."""


class Shutdown(Signals):
    """The server's handling of both signals. A second signal loses nothing either: everything that was acknowledged is
    in the log by then.

    Until `on_loop` is called the first signal raises KeyboardInterrupt in the main thread. `doing` returns a
    description of what is being loaded.
    """

    def __init__(self, doing: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._doing = doing
        self._said = threading.Lock()
        self._then: Callable[[], None] | None = None

    def on_loop(self, then: Callable[[], Any]) -> None:
        """Set what the first signal does from now on, on the running event loop; if it has already come, do it at
        once."""
        loop, context = asyncio.get_running_loop(), copy_context()
        self._then = lambda: _post(loop, then, context)
        if self.number is not None:
            self._then()

    def end_loading(self) -> None:
        """End loading. After LOADING_S the process exits, and with it all threads and libraries that did not react."""
        if self._timer is None:
            self._end_after(LOADING_S, self._give_up)

    def say(self) -> None:
        """Says what was stopped, once and in one line."""
        if self.number is not None and self._said.acquire(blocking=False):
            doing = self._doing()
            say_stopped(f"while {doing}" if doing else "", self.number)

    def _give_up(self) -> None:
        self.say()
        end_now(self.code)

    def _first(self) -> None:
        if self._then is not None:
            self._then()
            return
        self.end_loading()
        raise KeyboardInterrupt


def _post(loop: asyncio.AbstractEventLoop, then: Callable[[], Any], context: Context) -> None:
    with suppress(RuntimeError):  # the loop is closed: all work has ended
        # a signal comes amid some request, and its context would put that request's id on the lines about the stop
        loop.call_soon_threadsafe(then, context=context)


def farewell(answers: int, edits: int, requests: int, grace_s: float, number: signal.Signals | None) -> str:
    """A line that says what a stopping server waits for, for how long, and how to end the wait. `requests` counts open
    requests of any kind; it is shown only if there are neither answers nor edits."""
    counts = {"answer": answers, "edit": edits} if answers or edits else {"request": requests}
    counted = " and ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count)
    if not counted:
        return "Stopping: nothing is under way."
    again = "; press Ctrl-C again to stop at once" if number is signal.SIGINT else ""
    return f"Finishing {counted}, at most {grace_s:g} s{again}."
