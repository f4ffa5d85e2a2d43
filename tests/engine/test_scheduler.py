"""Slots: those that run stand side by side, and keys and values go where their sequence goes."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from app.domain.errors import QueueFull
from app.domain.generation import GenerationParameters
from app.engine.fits import FitBudget
from app.engine.scheduler import Scheduler, SlotMove
from app.engine.sequence import Phase, Sequence
from tests.rig import NOTHING, Rig, without_cache


def waiting(name: str, prompt_tokens: int = 3, new_tokens: int = 100) -> Sequence:
    nothing: Any = None
    return Sequence(
        text=name, prompt=tuple(range(1, prompt_tokens + 1)), edition=NOTHING, revision=0,
        parameters=GenerationParameters(max_new_tokens=new_tokens),
        emit=lambda _: None, sampler=nothing, answer=nothing,
    )  # fmt: skip


def decoding(sequence: Sequence, token: int) -> None:
    """The sequence as it is after its prefill, which gave this token."""
    sequence.phase, sequence.computed = Phase.DECODE, len(sequence.prompt)
    sequence.generated.append(token)


def names(sequences: Iterable[Sequence]) -> list[str]:
    return [sequence.text for sequence in sequences]


def test_no_more_run_than_there_are_slots_and_first_come_is_first_served() -> None:
    scheduler = Scheduler(slots=2, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    assert scheduler.next() is None
    for name in "abcd":
        scheduler.add(waiting(name))
    batch = scheduler.next()
    assert batch is not None
    assert (batch.phase, names(batch.sequences), batch.pieces) == (Phase.PREFILL, ["a", "b"], [(1, 2, 3)] * 2)
    assert (names(scheduler.running), names(scheduler.waiting)) == (["a", "b"], ["c", "d"])
    scheduler.remove(scheduler.running[0])
    scheduler.next()
    assert (names(scheduler.running), names(scheduler.waiting)) == (["b", "c"], ["d"])


def test_a_sequence_waits_for_room_and_what_came_later_does_not_overtake_it() -> None:
    scheduler = Scheduler(slots=8, chunk_tokens=8, batch_tokens=64, queue_limit=100, room_tokens=20)
    for name, new_tokens in (("a", 7), ("b", 7), ("c", 7), ("long", 30), ("short", 1)):
        scheduler.add(waiting(name, 3, new_tokens))
    scheduler.next()
    assert names(scheduler.running) == ["a", "b"], "10 tokens each are 20 in all"
    scheduler.remove(scheduler.running[0])
    scheduler.next()
    assert names(scheduler.running) == ["b", "c"]
    scheduler.remove(scheduler.running[0])
    scheduler.next()
    assert names(scheduler.running) == ["c"], "the long one waits, and the short one behind it"
    scheduler.remove(scheduler.running[0])
    scheduler.next()
    assert names(scheduler.running) == ["long"], "alone it runs, whatever it may come to hold"


def test_a_decode_step_feeds_one_token_of_each_in_the_order_of_their_slots() -> None:
    scheduler = Scheduler(slots=4, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    for name in "abc":
        scheduler.add(waiting(name))
    scheduler.next()
    for token, sequence in enumerate(scheduler.running, start=7):
        decoding(sequence, token)
    scheduler.remove(scheduler.running[0])
    batch = scheduler.next()
    assert batch is not None
    assert (batch.phase, names(batch.sequences), batch.pieces) == (Phase.DECODE, ["c", "b"], [(9,), (8,)])


def test_who_ends_leaves_its_slot_to_the_last_with_the_tokens_that_it_holds() -> None:
    scheduler = Scheduler(slots=4, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    for name in "abcd":
        scheduler.add(waiting(name))
    scheduler.next()
    a, b, c, d = scheduler.running
    d.computed = 3
    scheduler.remove(a)
    assert scheduler.moves == [SlotMove(3, 0, 3)]
    assert (a.slot, a.phase, d.slot) == (-1, Phase.DONE, 0)
    scheduler.moves.clear()
    for each in (c, b, d):
        scheduler.remove(each)
    assert scheduler.moves == [], "each was the last, and there is nothing to move"
    assert scheduler.idle


def test_who_ends_before_it_runs_leaves_the_queue() -> None:
    scheduler = Scheduler(slots=1, chunk_tokens=8, batch_tokens=64, queue_limit=100)
    queued = [waiting(name) for name in "abc"]
    for sequence in queued:
        scheduler.add(sequence)
    scheduler.remove(queued[1])
    assert (names(scheduler.waiting), queued[1].phase) == (["a", "c"], Phase.DONE)


@pytest.mark.parametrize(("most", "taken"), [(7, "a"), (8, "ab"), (11, "ab"), (12, "abc"), (15, "abc"), (16, "abcd")])
def test_prompts_share_a_pass_while_they_fit_padded_to_the_longest(most: int, taken: str) -> None:
    scheduler = Scheduler(slots=8, chunk_tokens=4, batch_tokens=most, queue_limit=100)
    for name, tokens in (("a", 2), ("b", 9), ("c", 3), ("d", 1)):
        scheduler.add(waiting(name, tokens))
    batch = scheduler.next()
    assert batch is not None
    assert "".join(names(batch.sequences)) == taken
    assert batch.pieces == [(1, 2), (1, 2, 3, 4), (1, 2, 3), (1,)][: len(taken)]


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
    with pytest.raises(QueueFull) as error:
        scheduler.add(waiting("c"))
    assert error.value.details == {"retry_after_s": 1}
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
