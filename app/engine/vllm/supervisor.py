"""The supervisor of a vLLM: notices that it has died or hangs, ends it, and starts it or connects to it again."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.engine.child_process import END_S
from app.engine.vllm.session import Item, VllmSession

_log = logging.getLogger(__name__)
PULSE_S = 5.0
"""The time without a message after which the workers are asked for a sign of life, in seconds."""
MOST_WAIT_S = 60.0
"""The longest wait between two attempts to replace a vLLM, in seconds."""
SOUND_S = 60.0
"""A vLLM that served for this long is started again at once, in seconds; after a shorter life the wait grows."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The vLLM is gone, and with it all requests and rows."""

    why: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """There is a vLLM again, which holds no rows yet."""

    session: VllmSession


Event = list[Item] | Lost | Recovery


def pause_s(failures: int) -> float:
    """The wait before the next attempt after so many failures in a row, in seconds."""
    return min(MOST_WAIT_S, 2.0 ** min(failures - 1, 10)) if failures else 0.0


class VllmSupervisor:
    """Keeps one vLLM at a time. `events` holds what happens, in order; each session is used until its `Lost` only."""

    def __init__(
        self, make: Callable[[], VllmSession], *, deadline_s: float, pulse_s: float = PULSE_S, unit_s: float = 1.0
    ) -> None:
        """Waits for the first vLLM. `deadline_s`: how long it may be silent before it counts as hung. `unit_s`:
        what a second of the waits between attempts takes. Raises UnsupportedModel."""
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._make, self._deadline_s, self._pulse_s, self._unit_s = make, deadline_s, pulse_s, unit_s
        self._wake: Callable[[], None] = lambda: None
        self._stopped = threading.Event()
        self._silent_since = self._hung = 0.0
        self._listening = self._pulsed = False
        self._threads = [threading.Thread(target=each, name="vllm", daemon=True) for each in (self._run, self._watch)]
        self.session = make()
        try:
            self.session.begin()
        except BaseException:
            self.session.end(0)
            raise

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to fill `events`. `wake` is called on other threads: after each event, and from time to time."""
        self._wake = wake
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End vLLM, or the attempt to replace it."""
        self._stopped.set()
        self.session.end(END_S)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # -- its threads

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            began = self._silent_since = time.monotonic()
            self._hung, self._pulsed, self._listening = 0.0, False, True
            why = self.session.listen(self._take)
            self._listening = False
            if self._stopped.is_set():
                return
            if self._hung:
                why = f"it has not answered for {self._hung:.0f} s"
            _log.error("vLLM is lost: %s", why, extra={"kind": "engine"})
            self._post(Lost(why))
            self.session.end(0)
            failures = failures + 1 if time.monotonic() - began < SOUND_S else 0
            self._regain(failures)

    def _regain(self, failures: int) -> None:
        since = time.monotonic()
        while not self._stopped.wait(self._unit_s * pause_s(failures)):
            try:
                self.session = self._make()
                if self._stopped.is_set():  # `stop` may have ended the one before
                    self.session.end(0)
                    return
                self.session.begin()
            except Exception as error:  # whatever it is, this thread is the only one that tries again
                self.session.end(0)
                failures += 1
                if not self._stopped.is_set():
                    why = getattr(error, "message", None) or repr(error)
                    _log.error("vLLM is still not available: %s", why, extra={"kind": "engine"})
                continue
            took = time.monotonic() - since
            _log.warning("vLLM serves again", extra={"kind": "engine", "seconds": round(took, 1)})
            self._post(Recovery(self.session))
            return

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._pulse_s)):
            listening, session = self._listening, self.session  # in this order: the silence may be of the one before
            silent_s = time.monotonic() - self._silent_since
            if not listening:
                self._wake()  # requests that wait for a vLLM have time limits
            elif silent_s >= self._deadline_s:
                self._hung = silent_s
                session.end(0)
            elif silent_s >= self._pulse_s and not self._pulsed:
                self._pulsed = True
                session.pulse()

    def _take(self, items: list[Item]) -> None:
        self._silent_since, self._pulsed = time.monotonic(), False
        if items:
            self._post(items)

    def _post(self, event: Event) -> None:
        self.events.put(event)
        self._wake()
