"""The fitter as the engine uses it: started, given fits, and started again when it has died."""

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from app.domain.errors import ErrataError, RequestCancelled, UnsupportedModel
from app.editors.base import FitProgress, FitRequest, Fitted
from app.engine.child_process import END_S, ChildProcess
from app.engine.fits import Fits, RunningFit
from app.engine.fitter.messages import (
    FitOutcome,
    FitterDied,
    FitterPlan,
    Progress,
    Ready,
    Refusal,
    Start,
    States,
    StatesWanted,
    Stop,
    receive,
    send,
)

_log = logging.getLogger(__name__)
HUNG_S = 5.0
"""The time in which a message must have been sent when the server stops, in seconds."""
REPEAT_S = 0.2
"""A fit's progress is repeated after this time without news, in seconds, so that a cancelled fit ends soon."""
Answer = Callable[[Sequence[Tensor] | ErrataError], None]
Rows = Sequence[Sequence[int]]
FindStates = Callable[[Rows, Answer], None]
"""Finds the states of rows of token ids, called on a thread of the fitter; the answer may be called from any thread."""


class Fitter:
    """One process at a time that fits edits. Its methods may be called from any thread."""

    def __init__(self, plan: FitterPlan, python: str = sys.executable) -> None:
        self._plan, self._python = plan, python
        self._find_states: FindStates | None = None
        self._lock = threading.RLock()
        self._process: ChildProcess | None = None
        self._reader: threading.Thread | None = None
        self._begun: queue.SimpleQueue[Ready | ErrataError] = queue.SimpleQueue()
        self._news: dict[int, queue.SimpleQueue[Progress | FitOutcome]] = {}
        self._fits = 0
        self._stopped = False
        self._drivers: dict[threading.Thread, list[ErrataError]] = {}
        """The threads that each carry one fit, with the error that ends it early, if there is one."""

    # -- life

    def begin(self) -> Ready:
        """Start the process and wait until it can fit. Raises UnsupportedModel."""
        self._ensure()
        begun = self._begun.get()
        if isinstance(begun, ErrataError):
            self.stop()
            raise UnsupportedModel(begun.message)
        return begun

    def answer_with(self, find_states: FindStates) -> None:
        """Set the source of the base model's states, for a plan that asks for them."""
        self._find_states = find_states

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def stop(self) -> int | None:
        """End all fits and the process. Returns its exit code, which is 0 if it ended by itself; None if there was
        none."""
        self.end_all(RequestCancelled("The server is stopping."))
        if self._lock.acquire(timeout=HUNG_S):
            self._lock.release()
        elif (hung := self._process) is not None:
            hung.end(0)  # what is being sent to it holds the lock
        with self._lock:
            self._stopped = True
            process = self._process
        for each in list(self._drivers):
            each.join()
        code = None if process is None else process.end(END_S)
        if self._reader is not None:
            self._reader.join()
        return code

    def _ensure(self) -> ChildProcess:
        """The process, started if there is none. It loads its part of the model before it reads further messages."""
        with self._lock:
            if self._process is None:
                command = [self._python, "-P", "-m", "app.engine.fitter.worker"]
                self._process = process = ChildProcess(command, environment())
                with suppress(OSError):  # it has ended, which its reader notices
                    send(process.connection, self._plan)
                self._reader = threading.Thread(target=self._read, args=(process,), name="fitter", daemon=True)
                self._reader.start()
            return self._process

    # -- fits

    def add(self, fitting: RunningFit) -> None:
        """Carry a fit, whose steps come from `fit`, on a thread of its own."""
        ends: list[ErrataError] = []

        def drive() -> None:
            fits = Fits(1.0)
            fits.add(fitting)
            while fits:
                if ends:
                    fits.end_all(ends[0])
                else:
                    fits.step()
            del self._drivers[thread]

        thread = threading.Thread(target=drive, name="fit", daemon=True)
        self._drivers[thread] = ends
        thread.start()

    def end_all(self, error: ErrataError) -> None:
        """End all fits under way with an error."""
        for ends in list(self._drivers.values()):
            ends.append(error)

    def fit(self, editor: str, requests: Sequence[FitRequest]) -> Generator[FitProgress, None, list[Fitted]]:
        """Yield the progress of a fit in the process, and return what it learned. Raises FitterDied if it dies."""
        with self._lock:
            self._fits += 1
            number = self._fits
            if self._stopped:
                raise RequestCancelled("The server is stopping.")
            news = self._news[number] = queue.SimpleQueue()
            self._send(self._ensure(), Start(number, editor, list(requests)))
        ended = False
        progress = FitProgress(step=0, steps=0, loss=float("nan"))
        try:
            while True:
                with suppress(queue.Empty):
                    message = news.get(timeout=REPEAT_S)
                    if isinstance(message, FitOutcome):
                        ended = True
                        if isinstance(message.result, ErrataError):
                            raise message.result
                        return message.result
                    progress = message.progress
                yield progress
        finally:
            with self._lock:
                del self._news[number]
                if not ended and self._process is not None:
                    self._send(self._process, Stop(number))

    def _send(self, process: ChildProcess, message: Any) -> None:
        with self._lock, suppress(OSError):  # it has ended, which its reader notices
            send(process.connection, message)

    # -- what the process says

    def _read(self, process: ChildProcess) -> None:
        ready, refused = False, None
        try:
            while True:
                message = receive(process.connection)
                if isinstance(message, Ready):
                    ready = True
                    self._begun.put(message)
                elif isinstance(message, Refusal):
                    refused = message.error
                elif isinstance(message, StatesWanted):
                    self._answer(process, message)
                elif (news := self._news.get(message.fit)) is not None:
                    news.put(message)
        except Exception:  # it has ended, or what it says cannot be read
            self._bury(process, ready, refused)

    def _answer(self, process: ChildProcess, wanted: StatesWanted) -> None:
        if self._find_states is None:
            self._send(process, States(FitterDied("The fitter asked for states that nobody has.")))
        else:

            def answer(states: Sequence[Tensor] | ErrataError) -> None:  # megabytes, which the engine must not wait for
                threading.Thread(target=self._send, args=(process, States(states)), daemon=True).start()

            self._find_states(wanted.rows, answer)

    def _bury(self, process: ChildProcess, ready: bool, refused: ErrataError | None) -> None:
        code = process.end(END_S)
        error = refused or FitterDied(
            f"The process that fits edits ended ({_named(code)}) before this fit was done, and is being started again: "
            "make the edit again. If this happens again, see the server's log: it may need more memory."
        )
        with self._lock:
            self._process = None
            for number, news in self._news.items():
                news.put(FitOutcome(number, error))
            if not ready:
                self._begun.put(refused or FitterDied(f"The fitter ended while it was starting ({_named(code)})."))
            if self._stopped:
                return
            _log.error("The fitter ended: %s", refused.message if refused else _named(code), extra={"kind": "engine"})
            if ready:
                self._ensure()


def environment() -> dict[str, str]:
    """The environment of the process, which imports this package from where this process has it."""
    root = str(Path(__file__).parents[3])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _named(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
