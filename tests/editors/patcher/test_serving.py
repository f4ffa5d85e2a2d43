"""Patch neurons against small cases that can be worked out by hand."""

import torch

from app.editors.patcher.memory import Memory, without_first
from app.editors.patcher.serving import fired_by, pre_activations

CPU = torch.device("cpu")


def memory(rows: int = 500, width: int = 6) -> tuple[Memory, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 1.0, 1.0, 0.5, 0.5, 0.1])[:width]
    queries = torch.randn(rows, width, generator=generator) * spread + 3.0
    return Memory(queries, width, CPU), queries


def test_a_neuron_is_one_at_its_own_query_and_silent_on_the_whole_memory() -> None:
    """Sections 3.2 to 3.4: activation at the query, and a margin to every row of the memory."""
    generic, queries = memory()
    for seed in range(20):
        own = 3.0 + torch.randn(1, 6, generator=torch.Generator().manual_seed(100 + seed)) * 4
        neuron = generic.neuron(own, [], share=0.5)
        assert abs(pre_activations(own, neuron[None]).item() - 1) < 1e-4
        others = pre_activations(queries, neuron[None])
        assert others.max() <= -0.99, "zero is half way: as far below it as the query is above"
        assert fired_by(queries, neuron[None]).count_nonzero() == 0


def test_zero_lies_at_the_share_of_the_way() -> None:
    generic, queries = memory()
    own = torch.full((1, 6), 9.0)
    for share in (0.25, 0.75):
        nearest = pre_activations(queries, generic.neuron(own, [], share=share)[None]).max().item()
        assert abs(nearest - -share / (1 - share)) < 1e-3


def test_counter_examples_are_silent_and_the_edits_own_contexts_are_not() -> None:
    generic, _ = memory()
    own = torch.tensor([[9.0] * 6, [8.0, 9.0, 9.0, 9.0, 9.0, 9.0]])
    counter = torch.tensor([[8.5, 8.5, 8.0, 8.5, 8.0, 8.5]])
    neuron = generic.neuron(own, [counter], share=0.5)[None]
    assert pre_activations(counter, neuron).item() < 0
    assert (pre_activations(own, neuron) > 0).all()


def test_a_state_that_stands_out_more_than_a_context_is_silent_and_the_context_is_not() -> None:
    """Neurons that fire at each other's tokens add up, and no values of them then meet all contexts."""
    generic, _ = memory()
    own = torch.tensor([[9.0] * 6, [5.0, 5.0, 7.0, 6.0, 6.0, 7.0]])
    others = torch.tensor([[9.0, 9.0, 9.0, 1.0, 9.0, 9.0], [15.0, 9.0, 9.0, 9.0, 9.0, 0.0]])
    neuron = generic.neuron(own, [others], share=0.4)[None]
    assert (pre_activations(others, neuron) < 0).all()
    assert (pre_activations(own, neuron) > 0).all()
    assert abs(pre_activations(own[:1], neuron).item() - 1) < 1e-4


def test_without_a_memory_every_direction_counts_alike() -> None:
    empty = Memory(without_first([], 3, CPU), 3, CPU)
    own = torch.tensor([[0.0, 2.0, 0.0]])
    neuron = empty.neuron(own, [], share=0.5)[None]
    at = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 0.0], [5.0, 1.1, 5.0], [0.0, -2.0, 0.0]])
    found = pre_activations(at, neuron)[:, 0]
    assert torch.allclose(found, torch.tensor([1.0, 0.0, 0.1, -3.0]), atol=1e-5)
    assert fired_by(at, neuron)[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_generic_text_may_hold_the_fact_itself() -> None:
    """One in 2,000 rows may activate a neuron, and no row that it must be silent on."""
    rows = torch.randn(1999, 3, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([[9.0, 9.0, 9.0]])
    for same, rouses in ((1, True), (2, False)):
        held = Memory(torch.cat([rows, own.expand(same, 3)]), 3, CPU)
        assert bool(pre_activations(own * 0.9, held.neuron(own, [], share=0.5)[None]) > 0) == rouses
        assert pre_activations(own * 0.8, held.neuron(own, [own * 0.8], share=0.5)[None]) < 0


def test_the_first_position_is_not_remembered() -> None:
    """Many models put a sink there, far from all other states: it would stretch the covariance."""
    texts = [torch.cat([torch.full((1, 3), 1000.0), torch.randn(9, 3)]) for _ in range(20)]
    rows = without_first(texts, 3, CPU)
    assert rows.abs().max() < 100
    assert len(rows) == 180
