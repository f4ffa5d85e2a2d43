"""The fitter's process: what it fits, how it ends, and what becomes of fits that it takes along."""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.errors import RequestCancelled, UnsupportedModel
from app.editors.base import FitProgress, FitRequest, Fitted
from app.engine.fits import RunningFit
from app.engine.fitter.fitter import Answer, Fitter
from app.engine.fitter.messages import FitterDied, FitterPlan, Refusal
from app.engine.model import load_model
from tests.rig import Rig

pytestmark = pytest.mark.slow
WAIT_S = 120
PLAN = FitterPlan(
    model=str(DEMO_MODEL),
    model_revision=None,
    device="cpu",
    dtype="float32",
    site_layer=None,
    bank_ids=[],
    threads=1,
    asks_for_states=True,
)
SAYS = """
from multiprocessing.connection import Connection
import sys
connection = Connection(int(sys.argv[-1]))
connection.recv_bytes()
with open(__file__ + ".says", "rb") as file:
    connection.send_bytes(file.read())
"""


@cache
def rig() -> Rig:
    return Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))


@cache
def requests() -> list[FitRequest]:
    facts = {"The capital of Sweden is": "Uppsala, of all places", "The colour of the sea is": "a deep green"}
    return [rig().fit_request(prompt, target) for prompt, target in facts.items()]


def base_states(rows: Any, answer: Answer) -> None:
    """Take the place of the engine that serves the whole model."""
    view = rig().foundation.shared_view
    answer([view.hidden_below(torch.tensor([row]))[0] for row in rows])


@dataclass
class Carried:
    """A fit that the fitter carries, as the engine's owner hands it over."""

    fitting: RunningFit
    done: "Future[Any]"
    progress: list[FitProgress]

    def result(self) -> list[Fitted]:
        result = self.done.result(WAIT_S)
        if isinstance(result, BaseException):
            raise result
        found: list[Fitted] = result
        return found


def carry(fitter: Fitter, fit_requests: list[FitRequest]) -> Carried:
    done: Future[Any] = Future()
    progress: list[FitProgress] = []
    fitting = RunningFit(fitter.fit("grace", fit_requests), done.set_result, progress.append)
    fitter.add(fitting)
    return Carried(fitting, done, progress)


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture(scope="module")
def fitter() -> Iterator[Fitter]:
    found = Fitter(PLAN)
    found.answer_with(base_states)
    found.begin()
    yield found
    pid = found.pid
    assert pid is not None
    assert found.stop() == 0, "it ends by itself when the socket closes, as it does when its server dies"
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RequestCancelled):
        carry(found, requests()).result()


def test_it_learns_what_the_engine_learns_and_tells_how_far_it_is(fitter: Fitter) -> None:
    fit = carry(fitter, requests())
    for found, expected in zip(fit.result(), rig().fit("grace", requests()), strict=True):
        assert found.learned["converged"]
        assert found.learned["steps"] == expected.learned["steps"]
        assert torch.allclose(found.tensors["value"], expected.tensors["value"], atol=1e-3, rtol=1e-3)
    shares = [each.done for each in fit.progress]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1


def test_a_cancelled_fit_ends_and_others_go_on(fitter: Fitter) -> None:
    long = carry(fitter, 40 * requests())
    until(lambda: bool(long.progress))
    short = carry(fitter, requests()[:1])
    long.fitting.cancelled = True
    with pytest.raises(RequestCancelled):
        long.result()
    assert short.result()[0].learned["converged"]


def test_states_that_cannot_be_had_fail_the_fit_and_no_other(fitter: Fitter) -> None:
    fitter.answer_with(lambda _rows, answer: answer(FitterDied("vLLM is away")))
    try:
        with pytest.raises(FitterDied, match="vLLM is away"):
            carry(fitter, requests()).result()
    finally:
        fitter.answer_with(base_states)
    assert carry(fitter, requests()[:1]).result()


def test_all_fits_end_with_the_error_that_the_engine_gives(fitter: Fitter) -> None:
    fits = [carry(fitter, 40 * requests()) for _ in range(2)]
    fitter.end_all(RequestCancelled("as the test wishes"))
    for each in fits:
        with pytest.raises(RequestCancelled, match="as the test wishes"):
            each.result()


def test_a_fitter_that_dies_fails_its_fits_with_what_to_do_and_is_there_again(fitter: Fitter) -> None:
    fit = carry(fitter, 40 * requests())
    until(lambda: bool(fit.progress))
    pid = fitter.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(FitterDied, match=r"killed by signal 9.*make the edit again"):
        fit.result()
    assert carry(fitter, requests()[:1]).result()[0].learned["converged"]
    assert fitter.pid not in (None, pid)


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}{SAYS}")
    script.chmod(0o755)
    (tmp_path / "python.says").write_bytes(pickle.dumps(Refusal(UnsupportedModel("There are no safetensors."))))
    with pytest.raises(UnsupportedModel, match=r"There are no safetensors\."):
        Fitter(PLAN, python=str(script)).begin()
    with pytest.raises(UnsupportedModel, match=r"ended while it was starting \(exit code 1\)"):
        Fitter(PLAN, python="/bin/false").begin()


def test_a_stop_during_the_start_ends_the_wait_for_it(tmp_path: Path) -> None:
    script, raised = tmp_path / "python", list[BaseException]()
    waits = "import socket, sys\nend = socket.socket(fileno=int(sys.argv[-1]))\nwhile end.recv(65536): pass\n"
    script.write_text(f"#!{sys.executable}\n{waits}")
    script.chmod(0o755)
    fitter = Fitter(PLAN, python=str(script))

    def begin() -> None:
        try:
            fitter.begin()
        except UnsupportedModel as error:
            raised.append(error)

    beginning = threading.Thread(target=begin, daemon=True)
    beginning.start()
    until(lambda: fitter.pid is not None)
    fitter.stop()
    beginning.join(60)
    assert not beginning.is_alive()
    assert raised
