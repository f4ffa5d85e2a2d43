"""Quantised weights are read as the numbers that they stand for, or refused by the name of what they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.domain.errors import UnsupportedModel
from app.engine.fitter.upper_layers import load_upper_layers
from app.engine.model import load_model, load_outline
from app.engine.quantised_weights import read_weight
from tests.engine.fitter.test_upper_layers import CPU, PROMPTS, check_upper_layers, saved
from tests.quantised import WEIGHTS, describe, pack, quantised

LOADS = [load_model, load_outline, lambda name, **given: load_upper_layers(name, model_revision=None, **given)]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize(("strategy", "packed"), [("channel", False), ("tensor", False), ("channel", True)])
def test_a_quantised_model_computes_and_fits_as_the_same_numbers_in_floats(
    kind: str, strategy: str, packed: bool, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    saved(kind, source)
    quantised(source, tmp_path, strategy, packed=packed)
    integers, floats = (load_model(str(tmp_path / each), **CPU) for each in ("integers", "floats"))
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        logits = [each.model(ids).logits for each in (integers, floats, load_model(str(source), **CPU))]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2]), "numbers were rounded"
    assert integers.eos_ids == floats.eos_ids
    outline = load_outline(str(tmp_path / "integers"), **CPU)
    assert outline.fingerprint == integers.fingerprint == floats.fingerprint
    check_upper_layers(floats, str(tmp_path / "integers"))


def test_rows_of_any_length_are_unpacked() -> None:
    """Four integers share an int32, and a row may end within one. All widths of the tiny models divide by four."""
    whole = torch.tensor([[-128, -1, 0, 1, 127, 5, -7], [7, 6, 5, 4, 3, 2, 1]], dtype=torch.int8)
    files = {"m_packed": pack(whole), "m_shape": torch.tensor([2, 7]), "m_scale": torch.tensor([[0.5], [2.0]])}
    found = read_weight("m", files.get)
    assert found is not None
    assert torch.equal(found, whole.float() * files["m_scale"])


GROUP = {"config_groups": {"group_0": {"weights": WEIGHTS}}, "format": "int-quantized"}


def in_group(**weights: Any) -> dict[str, Any]:
    return {**GROUP, "config_groups": {"group_0": {"weights": {**WEIGHTS, **weights}}}}


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"quant_method": "awq", "bits": 4}, "quantised by awq"),
        ({"quant_method": "gptq", "bits": 4}, "quantised by gptq"),
        ({"quant_method": "fp8"}, "quantised by fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantised by bitsandbytes"),
        (in_group(num_bits=4), "weights of the type int and 4 bits"),
        (in_group(type="float"), "weights of the type float and 8 bits"),
        (in_group(strategy="group"), "scales by group"),
        (in_group(symmetric=False), "zero points"),
        ({**GROUP, "format": "marlin-24"}, "the format marlin-24"),
        ({**GROUP, "sparsity_config": {"format": "sparse-24-bitmask"}}, "the sparse format sparse-24-bitmask"),
        ({**GROUP, "transform_config": {"config_groups": {"u": {}}}}, "transforms of the weights"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_with_what_to_do(
    section: dict[str, Any], named: str, tmp_path: Path
) -> None:
    saved("llama", tmp_path)
    describe(tmp_path, **{"quant_method": "compressed-tensors", **section})
    for load in LOADS:
        given = {**CPU, "site_layer": None} if load is LOADS[2] else CPU
        with pytest.raises(UnsupportedModel, match=f"{named}.* take the model without quantisation"):
            load(str(tmp_path), **given)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_numbers_of_few_bits_without_a_scale_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    saved("llama", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.2.mlp.down_proj.weight"
    save_file({**weights, name: weights[name].to(dtype)}, tmp_path / "model.safetensors", {"format": "pt"})
    for load in LOADS[1:]:
        given = {**CPU, "site_layer": None} if load is LOADS[2] else CPU
        with pytest.raises(UnsupportedModel, match=f"{name} is kept as {str(dtype).removeprefix('torch.')}"):
            load(str(tmp_path), **given)  # type: ignore[operator]
