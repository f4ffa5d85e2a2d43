"""The part of a model that a fit repeats: the layers from the site up, the last norm and the head."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from app.editors.fitting.partial_model import Skip, with_layers
from app.editors.fitting.sites import Architecture, architecture_of, ffn_site, layers_of
from app.engine.model import named
from app.engine.onednn import use_onednn
from app.engine.weight_files import WeightFiles, fill, modules_without_weights, names_of_parameters


class NoEmbedding(nn.Module):
    """Takes the place of the token embeddings, whose output a fit replaces by the states that enter the site's layer:
    ids (B, T) -> zeros (B, T, D)."""

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._zero = torch.zeros((), dtype=dtype, device=device)
        self._width = width

    def forward(self, ids: Tensor) -> Tensor:
        return self._zero.expand(*ids.shape, self._width)


def load_upper_layers(
    name: str, *, model_revision: str | None, device: torch.device, dtype: torch.dtype, site_layer: int | None
) -> tuple[Any, Architecture]:
    """Load the layers from the site's on. Those below it pass their input on, and nothing of them is read from disk.

    Raises UnknownModel if the model cannot be found, UnsupportedModel if its weights are not there in safetensors or
    are quantised in a way that cannot be read.
    """
    with named(name):
        config = AutoConfig.from_pretrained(name, revision=model_revision)
        architecture = architecture_of(config.model_type)
        whole = modules_without_weights(config, dtype)
        files = WeightFiles(name, model_revision, whole)
    names = names_of_parameters(whole)
    layers = layers_of(whole, architecture)
    first = ffn_site(whole, architecture, site_layer).layer
    model = with_layers(whole, architecture.layers, [*(Skip() for _ in range(first)), *layers[first:]])
    width = whole.get_input_embeddings().weight.shape[1]
    model.set_input_embeddings(NoEmbedding(width, dtype, device))  # type: ignore[operator]
    fill(model, files, names, device, dtype)
    model.to(device)  # the buffers
    model.eval()
    use_onednn(model)
    return model, architecture
