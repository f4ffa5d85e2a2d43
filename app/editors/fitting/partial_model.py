"""A second view of a model's modules, in which other layers stand; the parameters are shared."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Skip(nn.Module):
    """Stands where a layer below the site was: hands the hidden states on."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states


def with_layers(model: nn.Module, path: str, layers: Sequence[nn.Module]) -> nn.Module:
    """A copy of the modules on the path, with other layers at its end; everything else is shared."""
    root = _shallow(model)
    *parents, name = path.split(".")
    at = root
    for parent in parents:
        at._modules[parent] = child = _shallow(at.get_submodule(parent))
        at = child
    at._modules[name] = nn.ModuleList(layers)
    return root


def _shallow(module: nn.Module) -> nn.Module:
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    if "_hf_hook" in clone.__dict__:  # of a model on several devices; it would call the original with all its layers
        for name in ("_hf_hook", "_old_forward", "forward"):
            clone.__dict__.pop(name, None)
    return clone
