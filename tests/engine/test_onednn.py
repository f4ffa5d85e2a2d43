"""Linear layers by oneDNN: the same products and gradients, each weight held once, given back when asked for."""

import platform
import weakref

import pytest
import torch
from torch import nn

from app.engine.onednn import FrozenLinear, release_dense, use_onednn, without_onednn, works
from tests.models import tiny

X86 = platform.machine() in ("x86_64", "AMD64")
pytestmark = pytest.mark.skipif(not X86 and not works(), reason="torch need not have the operators beyond x86")


def frozen(model: nn.Module) -> list[FrozenLinear]:
    return [module for module in model.modules() if isinstance(module, FrozenLinear)]


def test_a_model_computes_the_same(architecture: str) -> None:
    model = tiny(architecture).model
    assert len(frozen(model)) > 8, "every linear layer"
    assert not [module for module in model.modules() if type(module) is nn.Linear]
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
        assert not frozen(model)
        plain = run()
    assert len(frozen(model)) > 8, "put back"
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_weight_stands_once_and_can_be_read() -> None:
    plain = nn.Linear(48, 96, bias=False).requires_grad_(False)
    expected = plain.weight.clone()
    model = nn.Sequential(plain)
    use_onednn(model)
    (layer,) = frozen(model)
    assert layer.laid_out.is_mkldnn
    assert not list(model.parameters()), "the plain weight is given up"
    assert torch.equal(layer.weight, expected)
    assert torch.equal(model.state_dict()["0.weight"], expected)
    torch.nn.functional.mse_loss(layer(torch.ones(2, 48, requires_grad=True)), torch.zeros(2, 96)).backward()
    assert layer.dense() is layer.dense(), "kept for the next step of a fit"
    kept = layer.dense()
    release_dense(model)
    assert layer.dense() is not kept


def test_a_head_that_shares_its_weight_with_the_embeddings_leaves_it_where_it_is() -> None:
    model = tiny("gpt2").model
    assert model.lm_head.laid_out.data_ptr() == model.transformer.wte.weight.data_ptr()


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    layer = tiny("llama").model.lm_head
    rows = torch.randn(40, layer.in_features)
    with torch.inference_mode():
        together = layer(rows)
        for count in (2, 3, 16, 17, 39):
            assert torch.equal(layer(rows[:count]), together[:count]), count


def test_half_precision_is_computed_too_where_the_cpu_can() -> None:
    model = tiny("llama", dtype=torch.bfloat16).model
    assert bool(frozen(model)) == works(torch.bfloat16)
    assert not frozen(tiny("llama", dtype=torch.float16).model)


def test_no_rows_give_no_rows() -> None:
    layer = tiny("llama").model.lm_head
    assert layer(torch.zeros(0, layer.in_features)).shape == (0, layer.out_features)


def test_layers_that_read_the_same_input_are_one_product() -> None:
    model = tiny("qwen2").model  # its q, k and v have a bias
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    for group in ([attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]):
        assert len({id(part.laid_out) for part in group}) == 1, "each weight is stored once"
        x = torch.randn(4, group[0].in_features)
        with torch.inference_mode(), torch.autograd.profiler.profile() as profile:
            found = [part(x) for part in group]
        products = [event for event in profile.function_events if event.name == "mkldnn::_linear_pointwise"]
        assert len(products) == 1
        for part, mine in zip(group, found, strict=True):
            torch.testing.assert_close(
                mine, torch.nn.functional.linear(x, part.weight, part.bias), rtol=1e-4, atol=1e-5
            )


def test_a_part_of_a_product_is_never_that_of_another_input() -> None:
    """A part is computed anew when it is asked for twice, alone, or in another order than the model's."""
    mlp = tiny("llama").model.model.layers[0].mlp
    gate, up = mlp.gate_proj, mlp.up_proj
    generator = torch.Generator().manual_seed(5)
    with torch.inference_mode():
        for part in (gate, gate, up, gate, up, up, up, gate):
            x = torch.randn(3, gate.in_features, generator=generator)  # often in the place of the one before
            torch.testing.assert_close(part(x), torch.nn.functional.linear(x, part.weight), rtol=1e-4, atol=1e-5)
            del x


def test_plain_weights_take_no_more_memory_than_they_have_numbers() -> None:
    model = tiny("llama").model
    with without_onednn(model):
        plain = [module.weight for module in model.modules() if type(module) is nn.Linear]
        assert all(weight.untyped_storage().nbytes() == weight.nbytes for weight in plain)


def test_a_pass_that_was_broken_off_keeps_nothing_once_fits_are_released() -> None:
    model = tiny("llama").model
    mlp = model.model.layers[0].mlp
    x = torch.randn(3, mlp.gate_proj.in_features)
    read = weakref.ref(x)
    with torch.inference_mode():
        mlp.gate_proj(x)
    del x
    assert read() is not None, "the other part waits"
    release_dense(model)
    assert read() is None
