"""Transformer-Patcher's published losses against values worked out by hand."""

import math

import pytest
import torch

from app.editors.patcher.losses import BETA, GAMMA, activation_loss, initial, largest, memory_loss


def test_at_first_a_neuron_is_exactly_one_at_its_own_query() -> None:
    queries = torch.tensor([[3.0, 4.0], [0.5, 0.0], [1.0, -7.0]])
    keys, biases = initial(queries)
    assert (queries * keys).sum(-1).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)
    assert biases.tolist() == [0.0, 0.0, 0.0]
    assert activation_loss(queries, keys, biases).item() == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("count", [5, 16, 1000])
def test_only_the_largest_count_and_by_their_exponentials_as_in_a_batch_of_eight_copies(count: int) -> None:
    """The published batch holds the edit 8 times; the largest are taken of all copies."""
    values = torch.randn(300, generator=torch.Generator().manual_seed(0))
    copies = values.repeat(8).topk(count).values
    assert largest(values, count).item() == pytest.approx(copies.exp().mean().item(), rel=1e-6)


def test_of_fewer_values_than_are_wanted_all_count() -> None:
    values = torch.tensor([0.0, 1.0, 2.0])
    assert largest(values, 99).item() == pytest.approx((1 + math.e + math.e**2) / 3)


def test_the_memory_losses_by_hand() -> None:
    """One neuron k = (1, 0), b = 0.5 with its query (2, 0): 2.5 there; -0.5 and 1.5 on two rows of the memory."""
    assert (BETA, GAMMA) == (-3.0, 3.0)
    keys, biases, queries = torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]), torch.tensor([[2.0, 0.0]])
    memory = torch.tensor([[-1.0, 5.0], [1.0, 5.0]])
    below = (math.exp(-0.5 + 3) + math.exp(1.5 + 3)) / 2  # not yet below -3
    apart = (math.exp(-0.5 - 2.5 + 3) + math.exp(1.5 - 2.5 + 3)) / 2  # 3 below 2.5, and 1 below
    assert memory_loss(memory, queries, keys, biases).item() == pytest.approx(below + apart, rel=1e-6)


def test_a_neuron_that_is_far_below_on_the_memory_costs_next_to_nothing() -> None:
    keys, biases, queries = torch.tensor([[1.0, 0.0]]), torch.tensor([-20.0]), torch.tensor([[40.0, 0.0]])
    assert memory_loss(torch.randn(50, 2), queries, keys, biases).item() < 1e-5


def test_without_a_memory_there_is_no_memory_loss() -> None:
    keys, biases = initial(torch.tensor([[3.0, 4.0]]))
    assert memory_loss(torch.zeros(0, 2), torch.tensor([[3.0, 4.0]]), keys, biases).item() == 0.0
