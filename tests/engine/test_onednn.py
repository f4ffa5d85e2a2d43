"""Linear layers by oneDNN: the same products and gradients, given back when asked for."""

import pytest
import torch
from torch import nn

from app.engine.onednn import use_onednn, without_onednn, works
from tests.models import tiny

ROOMY, SHORT = 1e12, 0.0
pytestmark = pytest.mark.skipif(not works(), reason="this torch has not the operators")


def changed(model: nn.Module) -> int:
    return sum("forward" in module.__dict__ for module in model.modules())


def forget(model: nn.Module) -> None:
    for module in model.modules():
        module.__dict__.pop("forward", None)


@pytest.mark.parametrize("free", [ROOMY, SHORT], ids=["laid out", "as they are"])
def test_a_model_computes_the_same(architecture: str, free: float) -> None:
    model = tiny(architecture).model
    forget(model)
    use_onednn(model, free)
    assert changed(model) > 8, "every linear layer"
    states = torch.randn(3, 7, model.config.hidden_size, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        given = states.clone().requires_grad_(True)
        logits = model(inputs_embeds=given).logits
        logits.logsumexp(-1).sum().backward()
        assert given.grad is not None
        return logits.detach(), given.grad

    with torch.autograd.profiler.profile() as profile:
        ours = run()
    assert "mkldnn::_linear_pointwise" in {event.name for event in profile.function_events}
    with without_onednn(model):
        assert changed(model) == 0
        plain = run()
    assert changed(model) > 8, "put back"
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    layer = tiny("llama").model.lm_head
    rows = torch.randn(40, layer.in_features)
    with torch.inference_mode():
        together = layer(rows)
        for count in (2, 3, 16, 17, 39):
            assert torch.equal(layer(rows[:count]), together[:count]), count


def test_what_it_is_not_for_stays_as_it_is() -> None:
    model = tiny("llama", dtype=torch.bfloat16).model
    assert changed(model) == 0
    layer = tiny("llama").model.lm_head
    assert layer(torch.zeros(0, layer.in_features)).shape == (0, layer.out_features)


def test_short_memory_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("llama").model
    forget(model)
    use_onednn(model, SHORT)
    assert "memory is short" in caplog.text
