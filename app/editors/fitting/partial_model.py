"""A copy of a model's module tree with other layers at its end. The parameters are shared with the original."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Skip(nn.Module):
    """A layer that passes the hidden states on unchanged. It takes the place of a layer below the site."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states


def with_layers(model: nn.Module, path: str, layers: Sequence[nn.Module]) -> nn.Module:
    """Return a copy of the model whose module list at `path` holds `layers`.

    Only the modules along the path are copied; all other modules are shared.
    """
    root = _shallow_copy(model)
    *parents, name = path.split(".")
    module = root
    for parent in parents:
        module._modules[parent] = child = _shallow_copy(module.get_submodule(parent))
        module = child
    module._modules[name] = nn.ModuleList(layers)
    return root


def _shallow_copy(module: nn.Module) -> nn.Module:
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    # On a model that is spread over several devices, accelerate's hook would call the original with all its layers.
    if "_hf_hook" in clone.__dict__:
        for name in ("_hf_hook", "_old_forward", "forward"):
            clone.__dict__.pop(name, None)
    return clone
