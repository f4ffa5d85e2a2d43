"""The weights of a model on disk, read one tensor at a time, and the model's modules without any weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from app.compat import names_in_files
from app.domain.errors import UnsupportedModel
from app.engine.quantised_weights import check_quantisation, read_weight


class WeightFiles:
    """A model's weights in safetensors, one file or several."""

    def __init__(self, name: str, revision: str | None, model: Any) -> None:
        """Find the files of a folder or hub name for a model's modules. Raises UnsupportedModel if there are none in
        safetensors, or if the weights are quantised in a way that cannot be read."""
        check_quantisation(name, model.config)
        self._file_of: dict[str, str] = {}
        for path in _paths(name, revision):
            with safe_open(path, framework="pt") as opened:
                self._file_of.update(dict.fromkeys(opened.keys(), path))
        self._names = names_in_files(model, self._file_of)

    def find(self, names: Iterable[str]) -> Tensor:
        """Return the tensor that has one of these names, as numbers if it is quantised. Raises UnsupportedModel if
        there is none, or if it cannot be read."""
        wanted = list(names)
        for name in wanted:
            if (weight := read_weight(name, self._read)) is not None:
                return weight
        raise UnsupportedModel(f"The files of this model hold no weight {wanted[0]}.")

    def _read(self, name: str) -> Tensor | None:
        if (kept := self._names.get(name)) is None:
            return None
        with safe_open(self._file_of[kept], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(kept)
            return tensor


def _paths(name: str, revision: str | None) -> list[str]:
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    if (single := cached_file(name, SAFE_WEIGHTS_NAME, **options)) is not None:
        return [single]
    if (index := cached_file(name, SAFE_WEIGHTS_INDEX_NAME, **options)) is not None:
        find_shards: Any = get_checkpoint_shard_files
        paths: list[str] = find_shards(name, index, revision=revision)[0]
        return paths
    raise UnsupportedModel(
        f"The model {name!r} has no weights in safetensors: convert them with `save_pretrained` of transformers, or "
        "fit in the server's own process (ERRATA_FITTER=inline)."
    )


class _NoWeights(TorchFunctionMode):
    """Creates what is to be filled later without memory. Buffers, which are computed, are created as ever."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})


def modules_without_weights(config: Any, dtype: torch.dtype) -> Any:
    """Return a causal LM whose parameters take no memory, apart from those of a few values per layer."""
    models: Any = AutoModelForCausalLM
    with _NoWeights():
        return models.from_config(config, dtype=dtype, attn_implementation="sdpa")


def names_of_parameters(model: Any) -> dict[int, list[str]]:
    """Return all names of each parameter, by its id: one that two modules share has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def fill(
    model: Any, files: WeightFiles, names: Mapping[int, list[str]], device: torch.device, dtype: torch.dtype
) -> None:
    """Give the modules of a model their weights, in place; `names` are those of each parameter by its id. Buffers stay
    where they are."""
    read: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for attribute, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in read:
                    weight = files.find(names[id(parameter)]).to(device=device, dtype=dtype, copy=True)
                    read[id(parameter)] = nn.Parameter(weight, requires_grad=False)
                module._parameters[attribute] = read[id(parameter)]
