"""The architectures that can be edited, and the paths of their layers and FFN modules. No other file has such paths."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from app.domain.errors import InvalidRequest, UnsupportedModel
from app.editors.base import Site


@dataclass(frozen=True, slots=True)
class Architecture:
    """The module paths inside a causal LM.

    `layers` leads to the list of layers. From a layer, `ffn` leads to the module whose output is the FFN's output, and
    `down` to the FFN's last linear map, its down-projection. The FFN's output is added to the residual stream, so that
    a change there reaches every layer above.
    """

    layers: str
    ffn: str
    down: str


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("model.layers", "mlp", "mlp.down_proj"),
    "mistral": Architecture("model.layers", "mlp", "mlp.down_proj"),
    "qwen2": Architecture("model.layers", "mlp", "mlp.down_proj"),
    "qwen3": Architecture("model.layers", "mlp", "mlp.down_proj"),
    "gemma": Architecture("model.layers", "mlp", "mlp.down_proj"),
    "phi": Architecture("model.layers", "mlp", "mlp.fc2"),
    "gpt2": Architecture("transformer.h", "mlp", "mlp.c_proj"),
    "gpt_neox": Architecture("gpt_neox.layers", "mlp", "mlp.dense_4h_to_h"),
    "opt": Architecture("model.decoder.layers", "fc2", "fc2"),  # OPT has no FFN module; fc2 ends the FFN.
}


def architecture_of(model_type: str) -> Architecture:
    """Return the paths of a model type. Raises UnsupportedModel, with the supported types, for any other."""
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise UnsupportedModel(
            f"Models of type {model_type!r} cannot be served with edits. Supported: {', '.join(sorted(ARCHITECTURES))}."
        ) from None


def layers_of(model: nn.Module, architecture: Architecture) -> nn.ModuleList:
    """Return the list of the model's layers."""
    layers = model.get_submodule(architecture.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def widths_of(module: nn.Module) -> tuple[int, int]:
    """Return the widths (D_in, D_out) of a site's module: of its first and last linear maps, or of itself."""
    maps = [each for each in module.modules() if hasattr(each, "in_features") or isinstance(each, Conv1D)]
    return _widths(maps[0])[0], _widths(maps[-1])[1]


def _widths(layer: Any) -> tuple[int, int]:
    if isinstance(layer, Conv1D):  # GPT-2 stores its linear maps transposed
        return layer.nx, layer.nf
    return layer.in_features, layer.out_features


def ffn_site(model: nn.Module, architecture: Architecture, layer: int | None) -> Site:
    """Return the site at the FFN of a layer. The default is the middle layer, where the last token's state represents
    the question best."""
    layer = _checked(model, architecture, layer)
    return Site(layer, f"{architecture.layers}.{layer}.{architecture.ffn}")


def down_site(model: nn.Module, architecture: Architecture, layer: int) -> Site:
    """Return the site at a layer's down-projection, where D_in is the FFN's inner width."""
    layer = _checked(model, architecture, layer)
    return Site(layer, f"{architecture.layers}.{layer}.{architecture.down}")


def _checked(model: nn.Module, architecture: Architecture, layer: int | None) -> int:
    count = len(layers_of(model, architecture))
    if layer is None:
        layer = count // 2
    if not 0 <= layer < count:
        raise InvalidRequest(f"The model has no layer {layer}: choose a site layer from 0 to {count - 1}.")
    return layer
