"""The engine over vLLM without vLLM: what it sends for a request, and what it makes of what comes back."""

import queue
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from app.domain.errors import DeadlineExceeded, IncompatibleEdit, QueueFull, RequestCancelled, UnsupportedModel
from app.domain.generation import GenerationParameters
from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.serving_engine import EngineFailed
from app.engine.vllm.engine import VllmEngine
from app.engine.vllm.process import VllmProcess, environment
from tests.rig import NOTHING, Outcome, Rig

PROMPT, TARGET = "The price of the ship is", "nothing at all"
EDITED = Edition("default", 1, ("e1@1",))


@dataclass
class RecordedProcess:
    """Takes the place of vLLM's process, and records the messages that it receives."""

    received: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)
    added: list[tuple[Any, ...]] = field(default_factory=list)
    aborted: list[int] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    stopped: bool = False

    def start(self, wake: Any) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def add(self, *message: Any) -> None:
        self.added.append(message)

    def abort(self, request: int) -> None:
        self.aborted.append(request)

    def load(self, *message: Any) -> None:
        self.rows.append(("load", *message))

    def drop(self, edit_id: str) -> None:
        self.rows.append(("drop", edit_id))


class Bench:
    """The engine with an edit of made-up rows, which is enough for all that is decided here."""

    def __init__(self) -> None:
        rig = Rig()
        self.process, self.sequences = RecordedProcess(), list[Any]()
        process: Any = self.process
        self.engine = VllmEngine(
            rig.hosted, rig.editors, rig.engine.scope, slots=2, queue_limit=1, fit_share=0.5, process=process
        )
        request = rig.fit_request(PROMPT, TARGET)
        self.target = list(request.target_ids)
        width = rig.hosted.model.config.hidden_size
        bare = Fitted(learned={"target_ids": self.target}, tensors={"value": torch.ones(len(self.target), width)})
        self.fitted = self.engine.with_scope("grace", bare, request)
        self.engine.load("e1@1", "grace", self.fitted)

    def add(self, edition: Edition = NOTHING, **parameters: Any) -> Outcome:
        outcome = Outcome()
        given = GenerationParameters(**{"max_new_tokens": 40, **parameters})
        self.sequences.append(self.engine.add(PROMPT, given, edition, edition.revision, outcome.items.append))
        return outcome

    def say(self, *items: list[Any]) -> None:
        self.process.received.put(list(items))
        self.engine.step()

    def tokens(self, number: int, ids: list[int]) -> None:
        self.say([number, "tokens", [[each, -0.5, 1, [[each, -0.5], [1, -2.0]]] for each in ids]])


def started(python: str) -> VllmProcess:
    return VllmProcess(python, {}, lambda *_: None)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_workers_get_an_edits_rows_as_they_were_fitted(bench: Bench) -> None:
    ((kind, edit_id, target, value),) = bench.process.rows
    assert (kind, edit_id, target) == ("load", "e1@1", bench.target)
    assert torch.frombuffer(bytearray(value), dtype=torch.float32).unique().tolist() == [1.0]
    bench.engine.drop("e1@1")
    assert bench.process.rows[1:] == [("drop", "e1@1")]


def test_rows_that_do_not_fit_the_site_never_reach_the_workers(bench: Bench) -> None:
    wrong = Fitted(learned=bench.fitted.learned, tensors={"value": torch.ones(len(bench.target), 3)})
    with pytest.raises(IncompatibleEdit):
        bench.engine.load("e2@1", "grace", wrong)
    assert len(bench.process.rows) == 1


def test_a_request_in_scope_names_its_edit_and_has_a_prefix_cache_of_its_own(bench: Bench) -> None:
    bench.add()
    bench.add(EDITED)
    (_, _, plain, no_salt, _), (_, prompt, edited, salt, _) = bench.process.added
    assert "extra_args" not in plain
    assert no_salt is None
    assert edited["extra_args"] == {"errata_edit": "e1@1", "errata_begun": 0}
    assert salt.endswith(f"/{len(prompt)}/0")


def test_an_answer_is_told_as_it_comes_and_names_the_edit_whose_target_it_gives(bench: Bench) -> None:
    outcome = bench.add(EDITED, top_logprobs=1)
    assert (bench.engine.running, bench.engine.waiting) == (0, 1)
    bench.tokens(1, bench.target[:1])
    assert (bench.engine.running, bench.engine.waiting) == (1, 0)
    bench.tokens(1, bench.target[1:])
    assert outcome.tokens == bench.target
    assert outcome.generation.text.strip() == TARGET
    assert [hit.edit_id for hit in outcome.generation.hits] == ["e1"]
    assert [each.logprob for each in outcome.items[0].ranked] == [-0.5, -0.5]
    assert (bench.engine.running, bench.engine.waiting) == (0, 0)


def test_a_stop_text_ends_the_request_in_vllm_too_and_tokens_that_come_later_are_ignored(bench: Bench) -> None:
    outcome = bench.add(EDITED, stop=("nothing",))
    bench.tokens(1, bench.target)
    assert outcome.generation.finish_reason == "stop_sequence"
    assert bench.process.aborted == [1]
    count = len(outcome.items)
    bench.tokens(1, [5])
    assert len(outcome.items) == count


def test_cancelled_late_and_failed_requests_end_with_an_error_each(bench: Bench) -> None:
    outcomes = [bench.add(), bench.add(timeout_s=3), bench.add()]
    bench.sequences[0].cancelled = True
    bench.say([2, "late"], [3, "failed", "ValueError: no"])
    assert [type(each.end) for each in outcomes] == [RequestCancelled, DeadlineExceeded, EngineFailed]
    assert bench.process.added[0][4] is None
    assert 0 < bench.process.added[1][4] <= 3


def test_a_request_that_vllm_ends_for_a_reason_of_its_own_does_not_wait_for_ever(bench: Bench) -> None:
    outcomes = [bench.add(), bench.add(EDITED, max_new_tokens=1)]
    bench.say([1, "tokens", [[5, -0.5, 1, [[5, -0.5]]]]], [1, "ended", "abort"])
    bench.say([2, "tokens", [[bench.target[0], -0.5, 1, []]]], [2, "ended", "length"])
    assert isinstance(outcomes[0].end, EngineFailed)
    assert "abort" in str(outcomes[0].end)
    assert outcomes[1].generation.finish_reason == "length"
    assert (bench.engine.running, bench.engine.waiting) == (0, 0)


def test_more_requests_than_slots_and_queue_hold_are_refused(bench: Bench) -> None:
    for _ in range(3):
        bench.add()
    with pytest.raises(QueueFull):
        bench.add()


def test_a_process_that_has_ended_fails_what_runs_and_what_comes(bench: Bench) -> None:
    outcome = bench.add()
    assert bench.engine.failure is None
    bench.process.received.put("its process has ended")
    assert not bench.engine.idle
    bench.engine.step()
    assert isinstance(outcome.end, EngineFailed)
    assert bench.engine.failure == "its process has ended"
    with pytest.raises(EngineFailed, match="its process has ended"):
        bench.add()


def test_other_editors_are_not_served(bench: Bench) -> None:
    assert list(bench.engine.editors) == ["grace"]


def test_a_python_that_is_not_there_and_one_without_vllm_are_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedModel, match=r"There is no Python at /no/python.*ERRATA_VLLM_PYTHON"):
        started("/no/python")
    with pytest.raises(UnsupportedModel, match="No module named 'vllm'"):
        started(sys.executable)


def test_a_process_that_ends_before_it_speaks_is_told_with_its_exit_code() -> None:
    with pytest.raises(UnsupportedModel, match="exit code 0"):
        started("/bin/true")


def test_vllms_python_finds_errata_in_one_folder_only() -> None:
    found = environment({"PYTHONPATH": "/elsewhere", "HOME": "/home/ann"})
    assert found["PYTHONPATH"].endswith("/vllm/inside")
    assert found["HOME"] == "/home/ann"
