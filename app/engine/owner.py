"""The thread that owns the engine. All others post to its mailbox and await a future."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch

from app.domain.errors import ErrataError, RequestCancelled
from app.domain.generation import GenerationParameters
from app.editors.base import FitProgress, FitRequest, Fitted
from app.engine.cores import Cores
from app.engine.editions import Edition, UncertaintyJudge
from app.engine.fits import RunningFit
from app.engine.memory import HeapTrim
from app.engine.sequence import Emit, PreparedRequest
from app.engine.sequence import Sequence as Running
from app.engine.serving_engine import EngineFailed, ServingEngine

T = TypeVar("T")
_log = logging.getLogger(__name__)


class EngineOwner:
    """Runs the engine's steps on one thread while there is work, and sleeps on the mailbox otherwise.

    `threads`: CPU threads that torch may use there, fewer while other processes need the cores; None: torch's default.
    """

    def __init__(self, engine: ServingEngine, threads: int | None = None) -> None:
        self.engine, self.threads = engine, threads
        self.examined_judge: UncertaintyJudge | None = None
        self._mailbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing, self._closed = threading.Lock(), False
        """Once the mailbox is closed, its last functions are run and no more are taken, so that nobody waits for one
        that never runs."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopping = False
        self._outbox: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends running requests and fits with an error, then the thread."""
        if self._thread.is_alive():
            self._post(self._stop)
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Runs a function on the engine's thread, between two steps. The future raises RequestCancelled once that has
        ended."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # the caller has gone: setting a result would raise on a thread that must not die
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        if not self._post(run):
            future.set_exception(_ended())
        return future

    def generate(
        self,
        requests: Sequence[tuple[str, GenerationParameters]],
        edition: Edition,
        revision: int,
        emits: Sequence[Emit],
        prepared: Sequence[PreparedRequest],
        began: float,
    ) -> "Future[list[Running]]":
        """Queues requests, all or none, with their prepared parts; their timeouts run from `began`. Each `emit` is
        called on the engine's thread until its one terminal event."""

        def add() -> list[Running]:
            added: list[Running] = []
            try:
                for (prompt, parameters), emit, one in zip(requests, emits, prepared, strict=True):
                    added.append(self.engine.add(prompt, parameters, edition, revision, emit, one, began))
            except ErrataError:
                for sequence in added:
                    sequence.cancelled = True
                raise
            return added

        return self.call(add)

    def emitting_to(self, loop: asyncio.AbstractEventLoop, arrived: "asyncio.Queue[Any]", at: int) -> Emit:
        """An `emit` that puts (at, item) into a queue of an event loop. Each loop is woken once per step for all its
        items: waking it for each token would cost more than handing the token over."""

        def emit(item: Any) -> None:
            self._outbox.setdefault(loop, []).append((arrived, (at, item)))

        return emit

    def _send(self) -> None:
        for loop, items in self._outbox.items():
            with suppress(RuntimeError):  # the loop is closed: nobody is listening
                loop.call_soon_threadsafe(_deliver, items)
        self._outbox = {}

    def cancel(self, sequences: Iterable[Running]) -> None:
        for sequence in sequences:
            sequence.cancelled = True
        self._wake()  # a sleeping engine, so that it sees the flag

    def end_all(self, error: ErrataError) -> None:
        """Ends all running and waiting answers and fits with an error each; work posted later still runs."""
        self._post(lambda: self.engine.end_all(error))

    def fit(
        self,
        editor: str,
        requests: Sequence[FitRequest],
        edition: Edition,
        on_progress: Callable[[FitProgress], None] = lambda _: None,
    ) -> "Future[list[Fitted]]":
        """Fits a batch between serving steps, whose edits will join those of `edition`.

        `on_progress` is called on the engine's thread at each micro-step and must return at once. Cancelling the
        future ends the fit at its next micro-step.
        """
        future: Future[list[Fitted]] = Future()

        def done(result: Any) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        def begin() -> None:
            try:
                steps = self.engine.fit(editor, requests, edition)
            except Exception as error:
                done(error)
                return
            fitting = RunningFit(steps, done, on_progress)
            future.add_done_callback(lambda f: setattr(fitting, "cancelled", f.cancelled()))
            self.engine.add_fit(fitting)

        if not self._post(begin):
            done(_ended())
        return future

    def _post(self, function: Callable[[], None]) -> bool:
        """Posts a function, unless the mailbox is closed; returns whether it will run."""
        with self._closing:
            if not self._closed:
                self._mailbox.put(function)
            return not self._closed

    def _wake(self) -> None:
        self._post(_nothing)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        cores = Cores(self.threads or torch.get_num_threads())
        torch.set_num_threads(cores.threads)
        heap = HeapTrim(self.engine.release_memory)
        try:
            self._serve(cores, heap)
        finally:
            self._end()

    def _serve(self, cores: Cores, heap: HeapTrim) -> None:
        self.engine.start(self._wake)
        while not self._stopping:
            self._read_mail(heap)
            if cores.changed():
                torch.set_num_threads(cores.threads)
            try:
                self.engine.step()
            except Exception as error:
                # a failed pass may have left any row's cache half written: end all requests, keep serving
                _log.exception("A forward pass failed")
                self.engine.end_all(EngineFailed(f"The model's forward pass failed: {type(error).__name__}."))
            self._send()
            heap.trim_if_due()

    def _end(self) -> None:
        with self._closing:
            self._closed = True
        posted: list[Callable[[], None]] = [partial(self.engine.end_all, _ended())]
        while not self._mailbox.empty():
            posted.append(self._mailbox.get())
        posted += [partial(self.engine.end_all, _ended()), self._send, self.engine.stop]
        for step in posted:
            try:
                step()
            except Exception:  # whoever waits for what comes next would wait for ever
                _log.exception("The engine could not be ended in order")

    def _read_mail(self, heap: HeapTrim) -> None:
        while self.engine.idle and self._mailbox.empty():
            with suppress(queue.Empty):
                self._mailbox.get(timeout=heap.due_in_s)()
                break
            heap.trim_if_due()
        while not self._mailbox.empty():
            self._mailbox.get()()


def _ended() -> RequestCancelled:
    return RequestCancelled("The server is stopping.")


def _nothing() -> None:
    """Wakes a sleeping engine's thread when it is posted."""


def _deliver(items: list[tuple["asyncio.Queue[Any]", Any]]) -> None:
    for arrived, item in items:
        arrived.put_nowait(item)
