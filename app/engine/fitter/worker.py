"""The fitter's own process: `python -m app.engine.fitter.worker FD`. It fits what the server sends, and ends with it.

Fits take turns, one micro-step each. While a fit waits for states of the base model, all wait.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from app.domain.errors import ErrataError, UnsupportedModel
from app.editors.base import Editor, FitProgress, Fitted
from app.editors.fitting.corpus import Corpus, Statistics
from app.editors.fitting.foundation import Foundation
from app.editors.fitting.hooks import SiteHooks
from app.editors.registry import make_editors
from app.engine.fitter.messages import (
    FitFailed,
    FitOutcome,
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
from app.engine.fitter.upper_layers import load_upper_layers
from app.engine.model import load_model
from app.engine.onednn import release_dense

_log = logging.getLogger(__name__)
EDITORS = ("grace",)
"""The editor keys whose fits need the layers above the shared site only, and no other edit."""
NICENESS = 5
"""The fitter yields to the processes that serve: it gets a quarter of a core that one of them wants for itself."""


class Worker:
    """The fits under way."""

    def __init__(self, connection: Connection, plan: FitterPlan) -> None:
        """Load the fitter's part of the model. Raises ErrataError."""
        self._connection = connection
        self._fits: deque[tuple[int, Generator[FitProgress, None, list[Fitted]]]] = deque()
        self._arrived: deque[Start | Stop] = deque()
        self._model, self._editors = self._load(plan)

    def _load(self, plan: FitterPlan) -> tuple[Any, Mapping[str, Editor]]:
        device, dtype = torch.device(plan.device), getattr(torch, plan.dtype)
        wanted = {"model_revision": plan.model_revision, "device": device, "dtype": dtype}
        states = self._states if plan.asks_for_states else None
        if states is None:
            hosted = load_model(plan.model, **wanted)
            model, architecture = hosted.model, hosted.architecture
        else:
            model, architecture = load_upper_layers(plan.model, site_layer=plan.site_layer, **wanted)
        hooks = SiteHooks(model)
        foundation = Foundation(
            model=model,
            architecture=architecture,
            hooks=hooks,
            site_layer=plan.site_layer,
            bank_ids=plan.bank_ids,
            statistics=Statistics(model, hooks, Corpus(name="none", documents=list)),
            base_states=states,
        )
        return model, make_editors(foundation, EDITORS)

    @property
    def weight_bytes(self) -> int:
        return sum(each.nbytes for each in (*self._model.parameters(), *laid_out(self._model)))

    def run(self) -> None:
        """Fit until the server's end of the socket closes, which raises EOFError."""
        while True:
            while self._arrived or not self._fits or self._connection.poll():
                self._take(self._arrived.popleft() if self._arrived else receive(self._connection))
            number, steps = self._fits.popleft()
            try:
                progress = next(steps)
            except StopIteration as stop:
                self._end(number, stop.value)
            except ErrataError as error:
                self._end(number, error)
            except (EOFError, OSError):
                raise
            except Exception as error:
                _log.exception("A fit failed")
                self._end(number, FitFailed(f"The fit failed: {type(error).__name__}: {error}"))
            else:
                self._fits.append((number, steps))
                send(self._connection, Progress(number, progress))

    def _take(self, message: Start | Stop) -> None:
        if isinstance(message, Start):
            self._fits.append((message.fit, self._editors[message.editor].fit(message.requests, None)))
            return
        for each in [each for each in self._fits if each[0] == message.fit]:
            self._fits.remove(each)
            each[1].close()

    def _end(self, number: int, result: list[Fitted] | ErrataError) -> None:
        send(self._connection, FitOutcome(number, result))
        if not self._fits:
            release_dense(self._model)

    def _states(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Ask the server for the states of the base model, and wait for them."""
        send(self._connection, StatesWanted(rows))
        while not isinstance(message := receive(self._connection), States):
            self._arrived.append(message)
        if isinstance(message.states, ErrataError):
            raise message.states
        first = next(self._model.parameters())
        return [each.to(first.device, first.dtype) for each in message.states]


def laid_out(model: Any) -> list[Tensor]:
    """Return the weights that `use_onednn` keeps outside of the model's parameters. Layers may share one."""
    kept = [each.laid_out for each in model.modules() if isinstance(getattr(each, "laid_out", None), Tensor)]
    return list({id(each): each for each in kept}.values())


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    disable_progress_bar()  # type: ignore[no-untyped-call]  # its output is the server's log
    with suppress(EOFError, OSError):  # the server has ended, and so does its fitter
        plan: FitterPlan = receive(connection)
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        try:
            worker = Worker(connection, plan)
        except ErrataError as error:
            send(connection, Refusal(error))
            return
        except Exception as error:
            _log.exception("The model cannot be loaded")
            send(connection, Refusal(UnsupportedModel(f"{type(error).__name__}: {error}")))
            return
        os.nice(NICENESS)
        send(connection, Ready(worker.weight_bytes))
        worker.run()


if __name__ == "__main__":
    main()
