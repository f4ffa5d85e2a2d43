"""Decode steps that are recorded once and done again with other contents. Without CUDA they are done again by Python,
over the same buffers: what a graph would read is what stands there."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.engine.editions import Edition
from app.engine.graphs import bucket, record_cuda
from tests.models import tiny
from tests.rig import NOTHING, Rig, without_cache

pytestmark = pytest.mark.slow
PROMPTS = ["The capital of Ruritania is", "The king of Zenda was", "Where does Marvolo live?", "a", "x" * 70]
EDITS = [("e0", PROMPTS[0], "S"), ("e1", PROMPTS[1], "Rudolf")]


class Recorder:
    """Does a step again over the same buffers, and keeps count."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        result = step().clone()

        def again() -> None:
            self.replayed += 1
            result.copy_(step())

        return again, result


def test_answers_are_those_of_eager_steps_at_every_edition() -> None:
    record = Recorder()
    rigs = [Rig(slots=3, chunk_tokens=16, record=record), Rig(slots=3, chunk_tokens=16)]
    for edition in (NOTHING, Edition("default", 2, ("e0", "e1")), Edition("default", 3, ("e1",)), NOTHING):
        for rig in rigs:
            if edition.revision == 2:
                rig.learn("grace", EDITS)
        answers = [[outcome.tokens for outcome in rig.ask(PROMPTS, edition, count=20)] for rig in rigs]
        assert answers[0] == answers[1]
    assert answers[0] == [without_cache(rigs[0].hosted, prompt, 20) for prompt in PROMPTS]
    assert record.replayed > 4 * record.recorded


def test_an_edit_or_a_rollback_records_nothing() -> None:
    record = Recorder()
    rig = Rig(record=record)
    for count in (1, 2):
        rig.ask(PROMPTS[:count])
    recorded = record.recorded
    rig.learn("grace", EDITS)
    edited = rig.ask(PROMPTS[:2], Edition("default", 2, ("e0", "e1")))
    wanted = [rig.engine.text.encode_target(prompt, target) for _, prompt, target in EDITS]
    assert [tuple(outcome.tokens) for outcome in edited] == wanted
    rig.ask(PROMPTS[:2], Edition("default", 3, ("e1",)))
    assert record.recorded == recorded


def test_rows_of_other_editors_go_the_eager_way() -> None:
    record = Recorder()
    rig = Rig(record=record)
    rig.learn("patcher", EDITS[:1])
    replayed = record.replayed
    (edited,) = rig.ask(PROMPTS[:1], Edition("default", 1, ("e0",)))
    assert tuple(edited.tokens) == rig.engine.text.encode_target(PROMPTS[0], "S")
    assert record.replayed == replayed


def failing(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    raise RuntimeError("operation not permitted when stream is capturing")


def wrong(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    result = -step()
    return lambda: None, result


@pytest.mark.parametrize("record", [failing, wrong])
def test_what_cannot_be_captured_or_differs_is_done_without(
    record: Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(record=record)
    with caplog.at_level(logging.WARNING):
        answers = [outcome.tokens for outcome in rig.ask(PROMPTS)]
    assert answers == [without_cache(rig.hosted, prompt, 8) for prompt in PROMPTS]
    assert [each.message.partition(":")[0] for each in caplog.records] == ["No CUDA graphs from here on"]


def test_buckets_are_few() -> None:
    assert [bucket(count, 12) for count in (1, 2, 3, 5, 9, 12)] == [1, 2, 4, 8, 12, 12]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_steps_answer_as_eager_ones(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(hosted=tiny("llama", device="cuda", dtype=dtype), record=record_cuda)
    before = [outcome.tokens for outcome in rig.ask(PROMPTS)]
    rig.learn("grace", EDITS)
    edited = rig.ask(PROMPTS, Edition("default", 2, ("e0", "e1")))
    wanted = [rig.engine.text.encode_target(prompt, target) for _, prompt, target in EDITS]
    assert [tuple(outcome.tokens) for outcome in edited[:2]] == wanted
    assert [outcome.tokens for outcome in rig.ask(PROMPTS, NOTHING)] == before
    assert not caplog.records, "else graphs were given up"
