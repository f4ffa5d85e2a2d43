"""Which architectures can be edited, and where their layers and FFN blocks are: all the module paths there are."""

from dataclasses import dataclass

from torch import nn

from app.domain.errors import InvalidRequest, UnsupportedModel
from app.editors.base import Site


@dataclass(frozen=True, slots=True)
class Architecture:
    """Paths inside a causal LM: `layers` to the list of its layers; from a layer, `ffn` to the module whose output is
    the FFN's, and `down` to the linear map that ends it, its down-projection.

    The FFN's output is added to the residual stream, so that what an adaptor adds there reaches every layer above.
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
    "opt": Architecture("model.decoder.layers", "fc2", "fc2"),  # OPT's FFN has no module of its own; fc2 ends it
}


def architecture_of(model_type: str) -> Architecture:
    """Raises UnsupportedModel, naming what is supported, for any other architecture."""
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise UnsupportedModel(
            f"Models of type {model_type!r} cannot be served with edits. Supported: {', '.join(sorted(ARCHITECTURES))}."
        ) from None


def layers_of(model: nn.Module, architecture: Architecture) -> nn.ModuleList:
    layers = model.get_submodule(architecture.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def ffn_site(model: nn.Module, architecture: Architecture, layer: int | None) -> Site:
    """The site at the FFN of a layer; by default the middle one, where the last token's state says what is asked."""
    layer = _checked(model, architecture, layer)
    return Site(layer, f"{architecture.layers}.{layer}.{architecture.ffn}")


def down_site(model: nn.Module, architecture: Architecture, layer: int | None) -> Site:
    """The site at the FFN's down-projection of a layer; by default the middle one. D_in is the FFN's inner width."""
    layer = _checked(model, architecture, layer)
    return Site(layer, f"{architecture.layers}.{layer}.{architecture.down}")


def _checked(model: nn.Module, architecture: Architecture, layer: int | None) -> int:
    count = len(layers_of(model, architecture))
    if layer is None:
        layer = count // 2
    if not 0 <= layer < count:
        raise InvalidRequest(f"The model has no layer {layer}: choose a site layer from 0 to {count - 1}.")
    return layer
