"""LoRAs in PEFT's format: an edit is written as one adapter, and an adapter that was learned elsewhere is read.

PEFT knows no router. The effect of an edit on a request is still one LoRA a module: its gates are decided once, so that
sum_j g_j up_j down_j is a LoRA of rank k R. This module knows nothing of pages or scopes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from app.domain.errors import InvalidRequest
from app.editors.lora_mixture.mixture import Mixture

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "lora_bias")


def write(folder: Path, mixture: Mixture, gates: Tensor, modules: Sequence[str], fan_in_fan_out: bool) -> None:
    """Write the mixture under gates (M, A) for M modules, given by their paths, as a folder in PEFT's format.

    Raises InvalidRequest if the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRequest(f"{folder} is not empty: name a new folder.")
    tensors = adapter_tensors(mixture, gates, modules)
    rank = len(next(iter(tensors.values())))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(modules),
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def adapter_tensors(mixture: Mixture, gates: Tensor, modules: Sequence[str]) -> dict[str, Tensor]:
    """Return the mixture under gates (M, A) as one LoRA of rank k R at each of M modules, given by their paths.

    The names are PEFT's. A module where fewer LoRAs act than elsewhere has zeros in their place.
    """
    acting = [gates[index].nonzero()[:, 0] for index in range(len(modules))]
    rank = max(len(each) for each in acting) * mixture.down.shape[2]
    tensors: dict[str, Tensor] = {}
    for index, module in enumerate(modules):
        chosen = acting[index]
        down = mixture.down[index, chosen].flatten(0, 1)  # (k R, D_in)
        up = (gates[index, chosen, None, None].to(mixture.up) * mixture.up[index, chosen]).transpose(0, 1).flatten(1)
        missing = rank - len(down)
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = pad(down, (0, 0, 0, missing)).contiguous()
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = pad(up, (0, missing)).contiguous()
    return tensors


def read(folder: Path, modules: Sequence[str], widths: tuple[int, int], query_width: int) -> Mixture:
    """Return an adapter as a mixture of one LoRA at each of `modules`. A module without weights gets a LoRA of zeros.

    Raises InvalidRequest if the adapter is no plain LoRA, or has weights at other modules or of other widths.
    """
    config, tensors = _loaded(folder)
    unsupported = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type") != "LORA" or unsupported or config.get("bias", "none") != "none":
        reason = ", ".join(unsupported) or f"peft_type {config.get('peft_type')!r}, bias {config.get('bias')!r}"
        raise InvalidRequest(f"{folder} is no plain LoRA ({reason}). Export a LoRA without these options.")
    known = {
        f"{_PREFIX}{module}.lora_{side}.weight": (index, side)
        for index, module in enumerate(modules)
        for side in ("A", "B")
    }
    elsewhere = sorted(set(tensors) - set(known))
    if elsewhere or not tensors:
        raise InvalidRequest(
            f"{folder} must have weights at these modules only: {', '.join(modules)}. It has weights at "
            f"{', '.join(elsewhere[:3]) or 'none'}."
        )
    rank = int(config.get("r", 0))
    scale = float(config.get("lora_alpha", rank)) / (rank**0.5 if config.get("use_rslora") else max(1, rank))
    (d_in, d_out), sites = widths, len(modules)
    down, up = torch.zeros(sites, 1, rank, d_in), torch.zeros(sites, 1, d_out, rank)
    for name, tensor in tensors.items():
        index, side = known[name]
        place = down[index, 0] if side == "A" else up[index, 0]
        if tensor.shape != place.shape or not torch.isfinite(tensor).all():
            raise InvalidRequest(
                f"{name} in {folder} has the shape {tuple(tensor.shape)}; this model takes {tuple(place.shape)} with "
                "finite numbers only."
            )
        place.copy_(tensor * (1.0 if side == "A" else scale))
    return Mixture(down, up, torch.zeros(sites, 1, query_width), torch.zeros(sites, 1))


def _loaded(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of an adapter. Raises InvalidRequest if they cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no object")
        return config, load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidRequest(f"{folder} holds no adapter in PEFT's format ({CONFIG}, {WEIGHTS}): {error}") from error
