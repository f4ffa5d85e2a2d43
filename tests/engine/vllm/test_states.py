"""The states that enter a layer: what the operator copies, and how a request's are put together."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.engine.vllm.inside.errata_vllm.rows import chosen_name
from app.engine.vllm.inside.errata_vllm.states import BUFFERS, StatesBuffer, install, layer_of

D = 4


class Fused(nn.Module):
    """A layer as most of vLLM's are: its input is the sum of two."""

    def forward(self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None) -> Tensor:
        return hidden_states if residual is None else hidden_states + residual


class Plain(nn.Module):
    """A layer without a residual of its own."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states


class Strange(nn.Module):
    """A layer whose input has another name."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def installed(layer: nn.Module, name: str) -> StatesBuffer:
    assert install(layer, name, rows=8, width=D, dtype=torch.float32, device=torch.device("cpu"))
    BUFFERS[name].asked = [("somebody", 0, 0, 1)]
    return BUFFERS[name]


def test_the_sum_that_enters_a_layer_is_copied_and_nothing_is_changed() -> None:
    layer, hidden, residual = Fused(), torch.ones(3, D), torch.full((3, D), 2.0)
    buffer = installed(layer, "fused")
    layer(torch.arange(3), hidden, residual)
    assert buffer.step[:3].unique().tolist() == [3.0]
    assert hidden.unique().tolist() == [1.0]
    layer(torch.arange(3), hidden_states=hidden, residual=None)
    assert buffer.step[:3].unique().tolist() == [1.0]


def test_nothing_is_copied_on_a_cpu_if_nobody_asks() -> None:
    layer = Plain()
    buffer = installed(layer, "plain")
    buffer.asked = []
    layer(torch.ones(2, D))
    assert not buffer.step.any()
    buffer.asked = [("somebody", 0, 0, 1)]
    layer(torch.ones(2, D))
    assert buffer.step[:2].all()


@torch.inference_mode()
def test_a_compiled_graph_keeps_the_operator() -> None:
    layer = Fused()
    buffer = installed(layer, "compiled")
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(torch.arange(2), torch.ones(2, D), torch.ones(2, D))
    assert buffer.step[:2].unique().tolist() == [2.0]


def test_a_layer_with_other_names_is_not_taken() -> None:
    arguments: dict[str, Any] = {"rows": 8, "width": D, "dtype": torch.float32, "device": torch.device("cpu")}
    assert not install(Strange(), "strange", **arguments)
    assert "strange" not in BUFFERS


@pytest.mark.parametrize("spans", [[(0, 6)], [(0, 2), (2, 2), (4, 2)], [(0, 4), (0, 6)], [(0, 3), (3, 3), (0, 4)]])
def test_states_are_put_together_from_chunks_and_after_a_preemption(spans: list[tuple[int, int]]) -> None:
    states = torch.arange(6.0)[:, None].expand(6, D)
    buffer = StatesBuffer(torch.zeros(8, D))
    for first, count in spans:
        buffer.step[2 : 2 + count] = states[first : first + count]
        buffer.asked = [("a", first, 2, count)]
        buffer.keep()
    found = buffer.fetch("a")
    assert found is not None
    assert torch.equal(found, states)
    assert buffer.fetch("a") is None, "they are kept until they are fetched once"


def test_a_beginning_that_was_not_computed_is_noticed() -> None:
    buffer = StatesBuffer(torch.zeros(8, D))
    buffer.asked = [("a", 3, 0, 2)]
    buffer.keep()
    assert buffer.fetch("a") is None


def test_names() -> None:
    assert layer_of("model.decoder.layers.15.fc2") == "model.decoder.layers.15"
    assert chosen_name({"errata_states": "7"}) == "7"
    assert [chosen_name(each) for each in (None, {}, {"errata_states": 7})] == [None, None, None]
