"""The sampler chooses a token for any valid parameters of a row, and never raises."""

import math
from typing import Any

import pytest
import torch

from app.domain.generation import GenerationParameters
from app.engine.sampler import Sampler, choose_all, rank

LOGITS = torch.tensor([1.0, 3.0, -2.0, 0.0, 2.5])


def chosen(logits: torch.Tensor = LOGITS, **parameters: Any) -> int:
    sampler = Sampler(GenerationParameters(max_new_tokens=1, seed=1, **parameters))
    return choose_all(logits[None], [sampler], [(1, 1, 3)], [[4, 4]])[0][0]


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-45, 1e-5, 1e300])
def test_no_temperature_is_too_low_or_too_high(temperature: float) -> None:
    token = chosen(temperature=temperature)
    assert 0 <= token < len(LOGITS)
    if temperature < 1e-3:
        assert token == 1, "the limit of cold is greedy"


@pytest.mark.parametrize("penalty", [1e-320, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("sampled", [{}, {"temperature": 1e-300}, {"do_sample": True, "top_p": 1e-9, "min_p": 1.0}])
def test_no_penalty_leads_out_of_numbers(penalty: float, sampled: dict[str, Any]) -> None:
    assert 0 <= chosen(repetition_penalty=penalty, frequency_penalty=-2.0, **sampled) < len(LOGITS)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_still_give_a_token(broken: float) -> None:
    logits = LOGITS.clone()
    logits[2] = broken
    for parameters in ({"temperature": 1.0}, {"repetition_penalty": 1.2}, {"do_sample": True, "top_k": 2}):
        assert 0 <= chosen(logits, **parameters) < len(LOGITS)
    assert 0 <= chosen(torch.full((5,), broken), temperature=1.0) < len(LOGITS)


@pytest.mark.parametrize("top_k", [1, 5, 10**18])
def test_any_top_k(top_k: int) -> None:
    assert 0 <= chosen(do_sample=True, top_k=top_k) < len(LOGITS)


def test_a_logit_bias_goes_before_every_choice() -> None:
    assert chosen(logit_bias=((1, -100.0),)) == 4
    assert chosen(logit_bias=((2, 50.0),), temperature=1e-3) == 2


def test_what_was_likeliest_is_ranked_behind_what_was_chosen() -> None:
    ranked = rank(LOGITS, 0, 2)
    assert [token for token, _ in ranked] == [0, 1, 4]
    assert [value for _, value in ranked] == pytest.approx(LOGITS.log_softmax(-1)[[0, 1, 4]].tolist())
    assert len(rank(LOGITS, 0, 20)) == 6, "no more than there are"


def test_penalties_still_do_what_they_are_for() -> None:
    assert chosen() == 1
    assert chosen(repetition_penalty=3.0) == 0  # 1, 3 and 4 stand in the prompt or the answer
    assert chosen(presence_penalty=-2.0) == 4
    assert chosen(frequency_penalty=2.0) == 1
