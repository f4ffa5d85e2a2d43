"""Hook layers against the least squares that they stand for, and z-scores against cases worked out by hand."""

import math

import pytest
import torch

from app.editors.hook_layer.dual_form import Prior, solve
from app.editors.hook_layer.paper import RunningStatistics, z_scores
from tests.editors.hook_layer.least_squares import Case, recursive, whole


def test_the_dual_form_is_recursive_least_squares_to_ten_digits() -> None:
    """Section 3.3's update, batch after batch, ends where W_T - W_0 = A P' does, whatever the batches."""
    case = Case(d_in=40, d_out=12, edits=15)
    weight, keys, values = recursive(case, batches=5)
    solved = torch.linalg.solve(case.prior, keys.T).T
    layer = solve(keys, solved, values - keys @ case.weight.T)
    x = torch.randn(7, 40, dtype=torch.float64)
    assert (layer.change(x) - x @ (weight - case.weight).T).abs().max() < 1e-10
    assert (whole(case, keys, values) - weight).abs().max() < 1e-10


def test_taking_a_pair_out_is_never_having_had_it() -> None:
    case = Case(d_in=40, d_out=12, edits=15)
    _, keys, values = recursive(case, batches=5)
    kept = [at for at in range(15) if at != 7]
    solved = torch.linalg.solve(case.prior, keys.T).T
    layer = solve(keys[kept], solved[kept], (values - keys @ case.weight.T)[kept])
    x = torch.eye(40, dtype=torch.float64)
    never = whole(case, keys[kept], values[kept]) - case.weight
    assert (layer.change(x) - never.T).abs().max() < 1e-10


def test_contradicting_values_of_one_key_are_averaged() -> None:
    """Why a correction of the same prompt must take the old pair out first."""
    case = Case(d_in=40, d_out=12, edits=0)
    key = torch.randn(1, 40, dtype=torch.float64) * 3
    solved = torch.linalg.solve(case.prior, key.T).T
    up = torch.ones(1, 12, dtype=torch.float64)
    layer = solve(torch.cat([key, key]), torch.cat([solved, solved]), torch.cat([up, -up]))
    assert layer.change(key).abs().max() < 1e-10


@pytest.mark.parametrize("weight", [0.1, 1.0, 30.0])
def test_one_pair_is_met_as_far_as_its_leverage_goes(weight: float) -> None:
    """s / (1 + s) of the residual, with s = k' C_0^-1 k."""
    moment = torch.eye(20)
    prior = Prior(moment, weight)
    key = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    solved = prior.solve(key)
    leverage = (key * solved).sum().item()
    residual = torch.ones(1, 5)
    met = solve(key, solved, residual).change(key)
    assert met.tolist()[0] == pytest.approx([leverage / (1 + leverage)] * 5, rel=1e-4)


def test_beyond_its_break_even_a_layer_is_held_as_a_weight_and_does_the_same() -> None:
    few, many = (Case(d_in=20, d_out=10, edits=n) for n in (6, 7))  # 20 * 10 / 30 = 6.67
    for case, is_weight in ((few, False), (many, True)):
        _, keys, values = recursive(case, batches=1)
        solved = torch.linalg.solve(case.prior, keys.T).T
        layer = solve(keys, solved, values - keys @ case.weight.T)
        assert (layer.weight is not None) == is_weight
        x = torch.randn(3, 20, dtype=torch.float64)
        assert torch.allclose(layer.change(x), x @ (whole(case, keys, values) - case.weight).T)
    assert layer.held_bytes == 20 * 10 * 8


def test_more_pairs_than_the_width_are_the_same_least_squares() -> None:
    for count in (19, 20, 21, 60):
        case = Case(d_in=20, d_out=10, edits=count)
        _, keys, values = recursive(case, batches=3)
        solved = torch.linalg.solve(case.prior, keys.T).T
        layer = solve(keys, solved, values - keys @ case.weight.T)
        x = torch.randn(3, 20, dtype=torch.float64)
        assert (layer.change(x) - x @ (whole(case, keys, values) - case.weight).T).abs().max() < 1e-10
        assert layer.held_bytes == 20 * 10 * 8, "constant, however many"


@pytest.mark.parametrize("tokens", [3, 4, 5, 6, 7, 20])
def test_no_z_score_exceeds_what_its_length_allows(tokens: int) -> None:
    """(T - 1) / sqrt(T) for one token that stands out among T: under 7 tokens the published 2.2 is out of reach."""
    changes = torch.zeros(tokens + 1)
    changes[3] = 5.0
    assert z_scores(changes).max().item() == pytest.approx((tokens - 1) / math.sqrt(tokens), abs=1e-5)


def test_tokens_that_are_alike_or_alone_have_no_z_score() -> None:
    for changes in ([4.0], [4.0, 7.0], [9.0, 2.0, 2.0, 2.0]):
        assert (z_scores(torch.tensor(changes)) == float("-inf")).all()


def test_the_first_position_is_in_no_statistic() -> None:
    changes = torch.tensor([1.0, 2.0, 3.0, 9.0])
    shifted = torch.tensor([1e6, 2.0, 3.0, 9.0])
    assert z_scores(changes)[1:].tolist() == z_scores(shifted)[1:].tolist()


def test_while_decoding_the_statistics_run_on_from_the_prompts() -> None:
    from app.editors.base import Site

    site, generator = Site(0, "mlp"), torch.Generator().manual_seed(3)
    changes = torch.rand(12, generator=generator)
    running = RunningStatistics()
    running.begin(site, changes[1:8])
    for at in range(8, 12):
        assert running.z_of(site, changes[at].item()) == pytest.approx(z_scores(changes[: at + 1])[at].item(), abs=1e-4)
