"""The engine's own laws: batching is solitude, slots come back, every request ends exactly once."""

import random
import time

import pytest

from app.domain.errors import DeadlineExceeded, InvalidRequest, QueueFull, RequestCancelled
from app.engine.sequence import Phase
from tests.rig import NOTHING, Rig, without_cache


def some_prompts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("abcdefgh ijkl,MNOP?") for _ in range(rng.randint(1, 90))) for _ in range(count)]


def test_continuous_batching_is_each_prompt_alone_without_a_cache(architecture: str) -> None:
    rig = Rig(architecture, slots=5, chunk_tokens=16, batch_tokens=64)
    prompts, counts = some_prompts(14, seed=1), [3, 17, 8, 1, 12, 5, 9, 2, 14, 6, 4, 11, 7, 10]
    outcomes = []
    for prompt, count in zip(prompts, counts, strict=True):
        outcomes.append(rig.add(prompt, count=count))  # the others join while these run
        rig.engine.step()
    rig.run()
    alone = [without_cache(rig.hosted, prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    assert [outcome.tokens for outcome in outcomes] == alone
    assert all(outcome.generation.finish_reason in ("length", "eos_token") for outcome in outcomes)


def test_a_slot_used_again_holds_nothing_of_its_last_user() -> None:
    rig = Rig(slots=1)
    long, short = "x" * 120, "abc"
    first = rig.ask([short])[0]
    rig.ask([long])
    again = rig.ask([short])[0]
    assert (again.tokens, again.logprobs) == (first.tokens, first.logprobs)


def test_decoding_goes_on_while_a_long_prompt_is_prefilled() -> None:
    rig = Rig(chunk_tokens=8, slots=2)
    talking = rig.add("talk", count=40)
    for _ in range(4):
        rig.engine.step()
    rig.add("y" * 160, count=1)
    before = len(talking.tokens)
    for _ in range(20):
        rig.engine.step()
    assert len(talking.tokens) >= before + 9, "a stream waits for at most every other step"


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_cancelling_frees_the_slot_and_ends_the_stream(steps: int) -> None:
    rig = Rig(slots=1)
    items: list[object] = []
    from app.domain.generation import GenerationParameters

    sequence = rig.engine.add("hello there", GenerationParameters(max_new_tokens=50), NOTHING, 0, items.append)
    for _ in range(steps):
        rig.engine.step()
    waiting = rig.add("next", count=2)
    sequence.cancelled = True
    rig.engine.step()
    assert isinstance(items[-1], RequestCancelled)
    assert sequence.phase is Phase.DONE
    rig.run()
    assert len(waiting.tokens) == 2
    assert sum(isinstance(item, RequestCancelled) for item in items) == 1


def test_a_full_queue_refuses_and_serves_on() -> None:
    rig = Rig(slots=1, queue_limit=2)
    accepted = [rig.add("a", count=2) for _ in range(2)]
    with pytest.raises(QueueFull):
        rig.add("a")
    rig.run()
    assert all(len(outcome.tokens) == 2 for outcome in accepted)


def test_prompts_that_cannot_be_served_are_refused_with_their_length() -> None:
    rig = Rig()
    with pytest.raises(InvalidRequest, match="300 tokens"):
        rig.add("z" * 300)
    with pytest.raises(InvalidRequest, match="room for 56 more"):
        rig.add("z" * 200, count=100)
    with pytest.raises(InvalidRequest, match="empty"):
        rig.add("")
    assert rig.engine.idle


def test_the_longest_sequence_fits_its_slot() -> None:
    rig = Rig(slots=2)
    outcome = rig.add("q" * 200, count=56)
    beside = rig.add("other", count=30)
    rig.run()
    assert outcome.tokens == without_cache(rig.hosted, "q" * 200, 56)
    assert beside.tokens == without_cache(rig.hosted, "other", 30)


def test_what_is_ended_ends_once_and_leaves_its_slot_to_others() -> None:
    rig = Rig(slots=2)
    outcomes = [rig.add("one"), rig.add("two"), rig.add("waits")]
    rig.engine.step()
    rig.engine.end_all(RequestCancelled("over"))
    assert [type(outcome.end) for outcome in outcomes] == [RequestCancelled] * 3
    assert rig.engine.idle
    assert rig.ask(["three"])[0].tokens == without_cache(rig.hosted, "three", 8)


def test_sampling_is_reproducible_and_independent_of_company() -> None:
    rig = Rig()
    settings = {"temperature": 1.3, "top_k": 40, "top_p": 0.95, "seed": 7}
    alone = rig.ask(["say something"], count=12, **settings)[0]
    crowd = [rig.add(f"other {i}", count=9, temperature=0.7, seed=i) for i in range(3)]
    again = rig.add("say something", count=12, **settings)
    rig.run()
    assert again.tokens == alone.tokens
    assert again.generation.seed == 7
    assert all(outcome.generation.seed == i for i, outcome in enumerate(crowd))
    seeds = {tuple(rig.ask(["say something"], count=12, temperature=1.3, seed=seed)[0].tokens) for seed in range(6)}
    assert len(seeds) > 1
    drawn = rig.ask(["say something"], count=12, do_sample=True)[0].generation
    replay = rig.ask(["say something"], count=12, do_sample=True, seed=drawn.seed)[0].generation
    assert [t.id for t in drawn.tokens] == [t.id for t in replay.tokens]


def test_top_k_of_one_is_greedy() -> None:
    rig = Rig()
    assert rig.ask(["x"], temperature=2.0, top_k=1, seed=3)[0].tokens == rig.ask(["x"])[0].tokens


def test_penalties_change_greedy_answers() -> None:
    rig = Rig()
    plain = rig.ask(["lalala"], count=24)[0].tokens
    for penalty in ({"repetition_penalty": 5.0}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert rig.ask(["lalala"], count=24, **penalty)[0].tokens != plain
    assert len(set(rig.ask(["lalala"], count=24, presence_penalty=2.0)[0].tokens)) >= len(set(plain))


def test_logprobs_are_those_of_the_model() -> None:
    import torch

    rig = Rig()
    outcome = rig.ask(["measure"], count=1)[0]
    ids = torch.tensor([rig.engine.text.encode("measure")])
    reference = rig.hosted.model(input_ids=ids).logits[0, -1].log_softmax(-1)[outcome.tokens[0]]
    assert outcome.logprobs[0] == pytest.approx(float(reference), abs=1e-4)


def test_a_deadline_ends_a_request_wherever_it_is() -> None:
    rig = Rig(slots=1)
    late = {"timeout_s": 1e-6}
    running, waiting = rig.add("hello", count=200), rig.add("there", count=200, **late)
    rig.engine.step()
    assert isinstance(waiting.end, DeadlineExceeded)
    assert "give more time" in waiting.end.message
    rig.run()
    assert running.generation.finish_reason in ("length", "eos_token")
    again = rig.add("there", count=3, **late)
    rig.run()
    assert isinstance(again.end, DeadlineExceeded)
    assert again.tokens == []
    assert rig.ask(["there"])[0].generation, "its slot is free"


def test_a_deadline_is_counted_from_when_the_request_began() -> None:
    rig = Rig()
    began = time.monotonic() - 60
    late = rig.add("hello", count=3, began=began, timeout_s=30)
    in_time = rig.add("hello", count=3, began=began, timeout_s=3600)
    rig.run()
    assert isinstance(late.end, DeadlineExceeded)
    assert len(in_time.tokens) == 3


def test_ranked_tokens_are_told_where_they_are_asked_for() -> None:
    rig = Rig()
    asked, other = rig.add("hello", count=3, top_logprobs=2), rig.add("hello", count=3)
    rig.run()
    tokens = asked.generation.tokens
    for token in tokens:
        chosen, first, second = token.ranked
        assert (chosen, chosen.id) == (first, token.id), "greedy: the likeliest is what was chosen"
        assert chosen.logprob == pytest.approx(token.logprob)
        assert first.logprob >= second.logprob
        assert (chosen.text, chosen.raw) == rig.engine.text.piece(token.id)
    assert asked.tokens == other.tokens
    assert all(token.ranked == () for token in other.generation.tokens)


def test_a_bias_for_no_token_of_the_model_is_refused() -> None:
    rig = Rig()
    with pytest.raises(InvalidRequest, match="go from 0 to 256"):
        rig.add("hello", count=3, logit_bias=((257, 1.0),))
    banned = rig.ask(["hello"])[0].tokens[0]
    biased = rig.add("hello", count=3, logit_bias=((banned, -100.0),))
    rig.run()
    assert banned not in biased.tokens


def test_end_of_text_may_be_ignored() -> None:
    rig = Rig()
    (eos,) = rig.hosted.eos_ids
    stops, goes = (rig.add("hello", count=5, forced=(eos,) * 5, ignore_eos=ignore) for ignore in (False, True))
    rig.run()
    assert (stops.generation.finish_reason, len(stops.tokens)) == ("eos_token", 1)
    assert (goes.generation.finish_reason, len(goes.tokens)) == ("length", 5)
