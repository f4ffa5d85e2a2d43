"""The operator that adds rows in the model's graph, run here without vLLM."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.engine.vllm.inside.errata_vllm.site import SITES, install


class Layer(nn.Module):
    """A residual layer of which `mlp` is the site."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    for name in list(SITES):
        monkeypatch.delitem(SITES, name)
    torch.manual_seed(0)
    made = Layer().requires_grad_(False)
    install(made.mlp, "mlp", rows=6, width=4, dtype=torch.float32, device=torch.device("cpu"))
    return made


@torch.inference_mode()
def test_rows_are_added_where_they_were_placed_and_nowhere_else(layer: Layer) -> None:
    x = torch.randn(5, 4)
    bare = layer(x)
    rows = [torch.full((4,), 1.0), torch.full((4,), 2.0)]
    SITES["mlp"].fill([3, 1], rows)
    edited = layer(x)
    assert torch.equal(edited - bare > 0.5, torch.tensor([[False], [True], [False], [True], [False]]).expand(5, 4))
    assert torch.equal(edited[[0, 2, 4]], bare[[0, 2, 4]]), "bit for bit"
    torch.testing.assert_close(edited[[3, 1]] - bare[[3, 1]], torch.stack(rows))


class WithBias(nn.Linear):
    """A linear map as vLLM's are: it returns its bias apart, if there is one to be added later."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


@torch.inference_mode()
def test_rows_are_added_to_a_linear_map_that_returns_its_bias_apart(layer: Layer) -> None:
    """The site of OPT, which has no module for its FFN."""
    x, fc2 = torch.randn(3, 4), WithBias(4, 4)
    install(fc2, "fc2", rows=3, width=4, dtype=torch.float32, device=torch.device("cpu"))
    bare, _ = fc2(x)
    SITES["fc2"].fill([1], [torch.ones(4)])
    edited, bias = fc2(x)
    assert bias is None
    torch.testing.assert_close(edited - bare, torch.tensor([0.0, 1.0, 0.0])[:, None].expand(3, 4))


@torch.inference_mode()
def test_a_step_without_edits_after_one_with_some_is_bare_again(layer: Layer) -> None:
    x = torch.randn(6, 4)
    bare = layer(x)
    SITES["mlp"].fill([0, 5], [torch.ones(4), torch.ones(4)])
    layer(x)
    SITES["mlp"].fill([2], [torch.ones(4)])
    assert (layer(x) == bare).all(1).tolist() == [True, True, False, True, True, True]
    SITES["mlp"].fill([], [])
    assert torch.equal(layer(x), bare)


@torch.inference_mode()
def test_a_compiled_graph_keeps_the_operator_and_reads_what_is_filled_later(layer: Layer) -> None:
    x = torch.randn(3, 4)
    bare = layer(x)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), bare)
    SITES["mlp"].fill([2], [torch.ones(4)])
    torch.testing.assert_close(compiled(x)[2] - bare[2], torch.ones(4))
    SITES["mlp"].fill([], [])
    assert torch.equal(compiled(x), bare)
