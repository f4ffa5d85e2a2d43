"""LoRAs to PEFT's format and back: merged into the weights, an exported one answers as its edit did."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.domain.errors import InvalidRequest
from app.editors.lora_mixture.adapter_files import CONFIG, WEIGHTS
from app.editors.lora_mixture.serving import export_lora
from app.engine.editions import Edition
from app.engine.onednn import without_onednn
from tests.models import tiny
from tests.rig import Rig, without_cache

pytestmark = pytest.mark.slow
PROMPT, TARGET = "The capital of Ruritania is", "S"


def exported(kind: str, folder: Path) -> Rig:
    rig = Rig(kind)
    fitted = rig.fit("lora_mixture", [rig.fit_request(PROMPT, TARGET)])[0]
    rig.load("lora_mixture", "ours", fitted)
    export_lora(folder, fitted.learned, fitted.tensors["key"], fitted.tensors)
    return rig


def taking(rig: Rig, folder: Path) -> Any:
    read_adapter = rig.editors["lora_mixture"].extras.read_adapter
    assert read_adapter is not None
    request = rig.fit_request(PROMPT, TARGET)
    return rig.engine.rescope(read_adapter(request, folder), request)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_merged_into_the_weights_it_answers_as_the_edit_does(kind: str, tmp_path: Path) -> None:
    rig = exported(kind, tmp_path / "lora")
    edited = rig.ask([PROMPT], Edition("default", 1, ("ours",)))[0].tokens
    assert tuple(edited[:2]) == rig.engine.text.encode_target(PROMPT, TARGET)[:2]
    config = json.loads((tmp_path / "lora" / CONFIG).read_text())
    assert config["fan_in_fan_out"] == (kind == "gpt2")
    tensors, merged = load_file(tmp_path / "lora" / WEIGHTS), tiny(kind)
    with without_onednn(merged.model):  # linear layers in the orientation (D_out, D_in), whatever the model's own is
        for module in config["target_modules"]:
            down, up = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
            merged.model.get_submodule(module).weight.data += config["lora_alpha"] / config["r"] * up @ down
        assert without_cache(merged, PROMPT, len(edited)) == edited


def test_what_was_exported_is_taken_in_as_an_edit_that_does_the_same(tmp_path: Path) -> None:
    rig = exported("llama", tmp_path / "lora")
    other = Rig("llama")
    other.load("lora_mixture", "theirs", taking(other, tmp_path / "lora"))
    ours, theirs = (
        each.ask([PROMPT, "Nobody asked about it"], Edition("default", 1, (name,)))
        for each, name in ((rig, "ours"), (other, "theirs"))
    )
    assert [outcome.tokens for outcome in ours] == [outcome.tokens for outcome in theirs]
    assert [[hit.edit_id for hit in outcome.generation.reached] for outcome in theirs] == [["theirs"], []]


def test_what_does_not_fit_is_refused_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    rig = exported("llama", folder)
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)

    def refused(says: str, weights: dict[str, torch.Tensor] = tensors, **changes: Any) -> None:
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))
        with pytest.raises(InvalidRequest, match=says):
            taking(rig, folder)

    name = next(iter(tensors))
    refused("is no plain LoRA", peft_type="IA3")
    refused("is no plain LoRA", use_dora=True)
    refused("is no plain LoRA", bias="all")
    refused(
        "must have weights at these modules only",
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": tensors[name]},
    )
    refused("has the shape", {name: tensors[name][:, :3].contiguous()})
    refused("with finite numbers only", {name: tensors[name] * float("nan")})
    (folder / CONFIG).unlink()
    with pytest.raises(InvalidRequest, match="holds no adapter in PEFT's format"):
        taking(rig, folder)
    with pytest.raises(InvalidRequest, match="is not empty: name a new folder"):
        exported("llama", folder)
