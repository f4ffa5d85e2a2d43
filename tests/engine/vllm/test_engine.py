"""The engine over vLLM without vLLM: what it sends for a request, and what it makes of what comes back."""

import math
import queue
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from app.domain.errors import (
    DeadlineExceeded,
    EngineAway,
    IncompatibleEdit,
    QueueFull,
    RequestCancelled,
    UnsupportedModel,
)
from app.domain.generation import GenerationParameters
from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.serving_engine import EngineFailed
from app.engine.vllm import engine as engine_module
from app.engine.vllm.engine import VllmEngine
from app.engine.vllm.process import VllmProcess, environment
from app.engine.vllm.session import Change
from app.engine.vllm.supervisor import Lost, Recovery
from tests.rig import NOTHING, Outcome, Rig

PROMPT, TARGET = "The price of the ship is", "nothing at all"
EDITED = Edition("default", 1, ("e1@1",))


@dataclass
class RecordedSession:
    """Takes the place of a life of vLLM, and records what it is asked for."""

    asked: list[str] = field(default_factory=list)
    added: list[tuple[Any, ...]] = field(default_factory=list)
    aborted: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def add(self, *message: Any) -> None:
        self.asked.append("add")
        self.added.append(message)

    def abort(self, request: int) -> None:
        self.aborted.append(request)

    def change(self, change: Change) -> None:
        self.asked.append(change.do)
        self.changes.append(change)


@dataclass
class Supervised:
    """Takes the place of the supervisor: the test says when vLLM is lost and replaced."""

    session: RecordedSession = field(default_factory=RecordedSession)
    events: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)


class Bench:
    """The engine with an edit of made-up rows, which is enough for all that is decided here."""

    def __init__(self, adapter_rank: int = 0) -> None:
        self.rig = rig = Rig()
        self.supervised, self.sequences = Supervised(), list[Any]()
        self.session = self.supervised.session
        vllm: Any = self.supervised
        self.engine = VllmEngine(
            rig.hosted,
            rig.editors,
            rig.engine.scope,
            slots=2,
            queue_limit=1,
            fit_share=0.5,
            vllm=vllm,
            adapter_rank=adapter_rank,
        )
        request = rig.fit_request(PROMPT, TARGET)
        self.target = list(request.target_ids)
        width = rig.hosted.model.config.hidden_size
        bare = Fitted(learned={"target_ids": self.target}, tensors={"value": torch.ones(len(self.target), width)})
        self.fitted = self.engine.with_scope("grace", bare, request)
        self.engine.load("e1@1", "grace", self.fitted)

    def add(self, edition: Edition = NOTHING, prompt: str = PROMPT, **parameters: Any) -> Outcome:
        outcome = Outcome()
        given = GenerationParameters(**{"max_new_tokens": 40, **parameters})
        self.sequences.append(self.engine.add(prompt, given, edition, edition.revision, outcome.items.append))
        return outcome

    def say(self, *items: list[Any]) -> None:
        self.happens(list(items))

    def happens(self, event: Any) -> None:
        self.supervised.events.put(event)
        self.engine.step()

    def regain(self) -> RecordedSession:
        session = RecordedSession()
        regained: Any = session
        self.happens(Recovery(regained))
        return session

    def tokens(self, number: int, ids: list[int]) -> None:
        self.say([number, "tokens", [[each, -0.5, 1, [[each, -0.5], [1, -2.0]]] for each in ids]])


def begin(python: str) -> None:
    process = VllmProcess(python, {})
    try:
        process.begin()
    finally:
        process.end(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_workers_get_an_edits_rows_as_they_were_fitted(bench: Bench) -> None:
    (rows,) = bench.session.changes
    assert (rows.do, rows.arguments) == ("load", ["e1@1", bench.target])
    assert torch.frombuffer(bytearray(rows.value), dtype=torch.float32).unique().tolist() == [1.0]
    bench.engine.drop("e1@1")
    assert bench.session.changes[1:] == [Change("drop", ["e1@1"])]


def test_rows_that_do_not_fit_the_site_never_reach_the_workers(bench: Bench) -> None:
    wrong = Fitted(learned=bench.fitted.learned, tensors={"value": torch.ones(len(bench.target), 3)})
    with pytest.raises(IncompatibleEdit):
        bench.engine.load("e2@1", "grace", wrong)
    assert len(bench.session.changes) == 1


def test_a_request_in_scope_names_its_edit_and_has_a_prefix_cache_of_its_own(bench: Bench) -> None:
    bench.add()
    bench.add(EDITED)
    (_, _, plain, no_salt, _), (_, prompt, edited, salt, _) = bench.session.added
    assert "extra_args" not in plain
    assert no_salt is None
    assert "adapter" not in {*plain, *edited}
    assert edited["extra_args"] == {"errata_edit": "e1@1", "errata_begun": 0}
    assert salt.endswith(f"-{len(prompt)}-0")


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


def test_a_request_whose_log_probabilities_nobody_reads_is_sent_and_answered_without_them(bench: Bench) -> None:
    outcome = bench.add(EDITED, token_logprobs=False)
    assert bench.session.added[0][2]["logprobs"] is None
    bench.say([1, "tokens", [[each, None, 0, []] for each in bench.target]])
    assert outcome.generation.text.strip() == TARGET
    assert all(math.isnan(each) for each in outcome.logprobs)


def test_a_stop_text_ends_the_request_in_vllm_too_and_tokens_that_come_later_are_ignored(bench: Bench) -> None:
    outcome = bench.add(EDITED, stop=("nothing",))
    bench.tokens(1, bench.target)
    assert outcome.generation.finish_reason == "stop_sequence"
    assert bench.session.aborted == [1]
    count = len(outcome.items)
    bench.tokens(1, [5])
    assert len(outcome.items) == count


def test_cancelled_late_and_failed_requests_end_with_an_error_each(bench: Bench) -> None:
    outcomes = [bench.add(), bench.add(timeout_s=3), bench.add()]
    bench.sequences[0].cancelled = True
    bench.say([2, "late"], [3, "failed", "ValueError: no"])
    assert [type(each.end) for each in outcomes] == [RequestCancelled, DeadlineExceeded, EngineFailed]
    assert bench.session.added[0][4] is None
    assert 0 < bench.session.added[1][4] <= 3


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


def test_what_had_begun_ends_with_vllm_and_what_had_not_is_sent_to_the_next_after_all_rows(bench: Bench) -> None:
    begun, waits = bench.add(EDITED), bench.add(EDITED)
    bench.tokens(1, bench.target[:1])
    bench.happens(Lost("it has died"))
    assert isinstance(begun.end, EngineAway)
    assert bench.engine.failure == "vLLM is away: it has died"
    comes = bench.add(EDITED)
    assert len(bench.session.added) == 2, "nothing more is sent to the one that is lost"
    bench.engine.load("e2@1", "grace", bench.fitted)
    bench.engine.drop("e2@1")
    session = bench.regain()
    assert bench.engine.failure is None
    assert session.asked == ["load", "add", "add"]
    assert session.changes == bench.session.changes
    bench.tokens(2, bench.target)
    bench.tokens(3, bench.target)
    assert waits.generation.text == comes.generation.text
    assert waits.generation.hits
    assert bench.engine.counters.restarts == 1


def test_a_request_that_vllm_dies_of_is_sent_no_third_time(bench: Bench) -> None:
    deadly = bench.add()
    bench.happens(Lost("it has died"))
    bench.regain()
    bench.happens(Lost("it has died"))
    assert isinstance(deadly.end, EngineAway)
    assert not bench.regain().added


def test_requests_wait_for_vllm_within_their_timeout(bench: Bench) -> None:
    bench.happens(Lost("it has died"))
    late, cancelled = bench.add(timeout_s=0.001), bench.add()
    bench.sequences[1].cancelled = True
    time.sleep(0.002)
    bench.engine.step()
    assert isinstance(late.end, DeadlineExceeded)
    assert isinstance(cancelled.end, RequestCancelled)
    assert not bench.regain().added


def test_where_vllm_stays_away_requests_fail_and_later_ones_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.happens(Lost("it has died"))
    waits = bench.add()
    monkeypatch.setattr(engine_module, "PATIENCE_S", 0)
    bench.engine.step()
    assert isinstance(waits.end, EngineAway)
    with pytest.raises(EngineAway, match="it has died"):
        bench.add()
    session = bench.regain()
    bench.add()
    assert len(session.added) == 1


def test_other_editors_are_not_served(bench: Bench) -> None:
    assert list(bench.engine.editors) == ["grace"]
    assert list(Bench(adapter_rank=8).engine.editors) == ["grace", "lora_mixture"]
    assert "enable_lora" in bench.engine.why_not_served("lora_mixture")
    assert "a vLLM that runs already is sent none" in bench.engine.why_not_served("lora_mixture")
    assert "states of the text" in bench.engine.why_not_served("patcher")


def test_a_python_that_is_not_there_and_one_without_vllm_are_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedModel, match=r"There is no Python at /no/python.*ERRATA_VLLM_PYTHON"):
        begin("/no/python")
    with pytest.raises(UnsupportedModel, match="No module named 'vllm'"):
        begin(sys.executable)


def test_a_process_that_ends_before_it_speaks_is_told_with_its_exit_code() -> None:
    with pytest.raises(UnsupportedModel, match="exit code 0"):
        begin("/bin/true")


def test_vllms_python_finds_errata_in_one_folder_only() -> None:
    found = environment({"PYTHONPATH": "/elsewhere", "HOME": "/home/ann"})
    assert found["PYTHONPATH"].endswith("/vllm/inside")
    assert found["HOME"] == "/home/ann"
