"""Slots: those that run stand side by side, and keys and values go where their sequence goes."""

import random
from typing import Any

import pytest

from app.domain.errors import QueueFull
from app.domain.generation import GenerationParameters
from app.engine.fits import FitBudget
from app.engine.scheduler import Scheduler
from app.engine.sequence import Phase, Sequence
from tests.rig import NOTHING, Rig, without_cache


def waiting(name: str) -> Sequence:
    nothing: Any = None
    return Sequence(
        text=name, prompt=(1, 2, 3), parameters=GenerationParameters(), edition=NOTHING, revision=0,
        emit=lambda _: None, sampler=nothing, answer=nothing,
    )  # fmt: skip


def test_slots_in_use_are_the_first_ones_and_moves_say_who_stands_where() -> None:
    rng = random.Random(3)
    scheduler = Scheduler(slots=6, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    held: dict[int, str] = {}  # what a cache that does as told holds in each slot
    for number in range(300):
        if rng.random() < 0.6 and len(scheduler.waiting) < 5:
            scheduler.add(waiting(str(number)))
        elif scheduler.running:
            scheduler.remove(rng.choice(scheduler.running))
        for move in scheduler.moves:
            held[move.target] = held[move.source]
        scheduler.moves.clear()
        before = {sequence.text for sequence in scheduler.running}
        scheduler.next()
        held |= {sequence.slot: sequence.text for sequence in scheduler.running if sequence.text not in before}
        assert sorted(sequence.slot for sequence in scheduler.running) == list(range(len(scheduler.running)))
        assert all(held[sequence.slot] == sequence.text for sequence in scheduler.running)


def test_who_has_gone_takes_no_place_in_the_queue() -> None:
    scheduler = Scheduler(slots=1, chunk_tokens=8, batch_tokens=64, queue_limit=2)
    for name in "ab":
        scheduler.add(waiting(name))
    with pytest.raises(QueueFull):
        scheduler.add(waiting("c"))
    for sequence in scheduler.waiting:
        sequence.cancelled = True
    scheduler.add(waiting("c"))
    scheduler.add(waiting("d"))
    with pytest.raises(QueueFull, match="2 requests"):
        scheduler.add(waiting("e"))


def test_batches_go_by_slot() -> None:
    scheduler = Scheduler(slots=4, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    for name in "abcd":
        scheduler.add(waiting(name))
    scheduler.next()
    a, _, _, d = list(scheduler.running)
    scheduler.remove(a)
    batch = scheduler.next()
    assert batch is not None
    assert [sequence.slot for sequence in batch.sequences] == [0, 1, 2]
    assert d.slot == 0


def test_prompts_beside_streams_come_a_chunk_at_a_time() -> None:
    scheduler = Scheduler(slots=8, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    for name in "abcde":
        scheduler.add(waiting(name))
    first = scheduler.next()
    assert first is not None
    assert len(first.sequences) == 5, "nobody waits: all at once"
    scheduler.running[0].phase = Phase.DECODE
    scheduler.running[0].computed = 3
    scheduler.running[0].generated.append(7)
    turns = [scheduler.next() for _ in range(2)]
    assert [(turn.phase, len(turn.sequences)) for turn in turns if turn] == [(Phase.DECODE, 1), (Phase.PREFILL, 2)]


def test_rows_that_are_still_prefilled_come_along_idle() -> None:
    rig = Rig(slots=3, chunk_tokens=8)
    prompts, counts = ["first", "x" * 150, "third"], [40, 3, 12]
    outcomes = [rig.add(prompt, count=count) for prompt, count in zip(prompts, counts, strict=True)]
    holes = 0
    while not rig.engine.idle:
        rig.engine.step()
        decoding = sorted(s.slot for s in rig.engine.scheduler.running if s.phase is Phase.DECODE)
        holes += bool(decoding) and decoding[-1] - decoding[0] + 1 > len(decoding)
    assert holes > 5, "else it was not tried"
    alone = [without_cache(rig.hosted, prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    assert [outcome.tokens for outcome in outcomes] == alone


def test_fits_get_their_share_and_no_more() -> None:
    for share, micro_step_s in ((0.3, 0.01), (0.3, 0.5), (0.75, 0.02)):
        budget, fitted_s, served_s = FitBudget(share), 0.0, 0.0
        for _ in range(20_000):
            budget.served(0.02)
            served_s += 0.02
            if budget.due:
                budget.fitted(micro_step_s)
                fitted_s += micro_step_s
        taken = fitted_s / (fitted_s + served_s)
        assert taken <= share + 0.01
        assert taken >= min(share, micro_step_s / (micro_step_s + 0.02)) - 0.1
    free = FitBudget(1.0)
    for _ in range(3):
        free.fitted(10.0)
        free.served(1e-9)
        assert free.due
