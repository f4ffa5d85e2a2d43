"""Checkpoints whose linear maps are kept as integers of 8 bits, made of others as compressed-tensors writes them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
BY_TOKEN = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


def quantised(source: Path, folder: Path, strategy: str = "channel", *, packed: bool = False) -> Path:
    """Make a folder of a model in a folder, with a model quantised by a scale for each row ("channel") or each matrix
    ("tensor"): W8A8, or, packed, W8A16. Returns another folder in it, with the same numbers as floats."""
    integers, floats = folder / "integers", folder / "floats"
    for each in (integers, floats):
        shutil.copytree(source, each)
    weights = load_file(source / "model.safetensors")
    written: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not (name.endswith("proj.weight") and weight.ndim == 2):
            written[name] = weight
            continue
        most = weight.float().abs()
        scale = (most.amax(1, keepdim=True) if strategy == "channel" else most.max().reshape(1)) / 127
        whole = (weight.float() / scale).round().to(torch.int8)
        weights[name] = whole.float() * scale
        written[f"{name}_scale"] = scale
        if packed:
            written[f"{name}_packed"] = pack(whole)
            written[f"{name}_shape"] = torch.tensor(whole.shape)
        else:
            written[name] = whole
    save_file(weights, floats / "model.safetensors", {"format": "pt"})
    save_file(written, integers / "model.safetensors", {"format": "pt"})
    describe(
        integers,
        quant_method="compressed-tensors",
        format="pack-quantized" if packed else "int-quantized",
        quantization_status="compressed",
        config_groups={
            "group_0": {
                "targets": ["Linear"],
                "weights": {**WEIGHTS, "strategy": strategy},
                "input_activations": None if packed else BY_TOKEN,
            }
        },
        ignore=["lm_head"],
    )
    return folder


def describe(folder: Path, **section: Any) -> None:
    """Have the config of a model say that it is quantised so."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": section}))


def pack(whole: Tensor) -> Tensor:
    """Pack integers (N, D) int8 four to an int32, as bytes from 0 on, the first one lowest."""
    padded = torch.nn.functional.pad(whole.to(torch.int16) + 128, (0, -whole.shape[1] % 4)).to(torch.uint8)
    return padded.contiguous().view(torch.int32)
