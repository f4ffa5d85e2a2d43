"""LoRAs in PEFT's format: an edit's own, as one adapter, out; one that was learned elsewhere, in.

PEFT knows no router. What an edit does to a request is one LoRA a module all the same: its gates are decided once, so
that sum_j g_j up_j down_j is a LoRA of rank k R. Knows nothing of pages or scopes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.domain.errors import InvalidRequest
from app.editors.lora_mixture.mixture import Mixture

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "lora_bias")


def write(folder: Path, mixture: Mixture, gates: Tensor, modules: Sequence[str], fan_in_fan_out: bool) -> None:
    """The mixture under gates (M, A), at `modules` (M), as a folder. Raises InvalidRequest if it is there."""
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRequest(f"{folder} is not empty: name a new folder.")
    acting = [gates[at].nonzero()[:, 0] for at in range(len(modules))]
    rank = max(len(each) for each in acting) * mixture.down.shape[2]
    tensors: dict[str, Tensor] = {}
    for at, module in enumerate(modules):
        chosen = acting[at]
        down = mixture.down[at, chosen].flatten(0, 1)  # (k R, D_in)
        up = (gates[at, chosen, None, None].to(mixture.up) * mixture.up[at, chosen]).transpose(0, 1).flatten(1)
        missing = rank - len(down)
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = torch.nn.functional.pad(down, (0, 0, 0, missing))
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = torch.nn.functional.pad(up, (0, missing))
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
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, modules: Sequence[str], widths: tuple[int, int], query_width: int) -> Mixture:
    """An adapter as a mixture of one LoRA at each of `modules`, zero where it has none.

    Raises InvalidRequest for what is no plain LoRA, or has weights elsewhere or of other widths.
    """
    config, tensors = _loaded(folder)
    unsupported = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type") != "LORA" or unsupported or config.get("bias", "none") != "none":
        what = ", ".join(unsupported) or f"peft_type {config.get('peft_type')!r}, bias {config.get('bias')!r}"
        raise InvalidRequest(f"{folder} is no plain LoRA ({what}): merge it, or export one without.")
    known = {
        f"{_PREFIX}{module}.lora_{side}.weight": (at, side) for at, module in enumerate(modules) for side in ("A", "B")
    }
    elsewhere = sorted(set(tensors) - set(known))
    if elsewhere or not tensors:
        raise InvalidRequest(
            f"{folder} has weights that this server's mixture has no place for ({', '.join(elsewhere[:3]) or 'none'}): "
            f"it acts at {', '.join(modules)}."
        )
    rank = int(config.get("r", 0))
    scale = float(config.get("lora_alpha", rank)) / (rank**0.5 if config.get("use_rslora") else max(1, rank))
    (d_in, d_out), sites = widths, len(modules)
    down, up = torch.zeros(sites, 1, rank, d_in), torch.zeros(sites, 1, d_out, rank)
    for name, tensor in tensors.items():
        at, side = known[name]
        place = down[at, 0] if side == "A" else up[at, 0]
        if tensor.shape != place.shape or not torch.isfinite(tensor).all():
            raise InvalidRequest(
                f"{name} in {folder} has the shape {tuple(tensor.shape)}; this model takes {tuple(place.shape)}, of "
                "finite numbers."
            )
        place.copy_(tensor * (1.0 if side == "A" else scale))
    return Mixture(down, up, torch.zeros(sites, 1, query_width), torch.zeros(sites, 1))


def _loaded(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no object")
        return config, load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidRequest(f"{folder} holds no adapter in PEFT's format ({CONFIG}, {WEIGHTS}): {error}") from error
