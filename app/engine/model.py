"""Loads a causal LM, or its outline without weights, freezes it and computes its fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from app.domain.errors import InvalidRequest, UnknownModel, UnsupportedModel
from app.editors.fitting.sites import Architecture, architecture_of, layers_of
from app.engine.onednn import use_onednn
from app.engine.quantised_weights import is_quantised
from app.engine.weight_files import WeightFiles, fill, modules_without_weights, names_of_parameters

_SAMPLED = 65_536
"""Number of sampled values per parameter in the fingerprint: hashing all of a 16 GB model would take minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedModel:
    """A frozen model with its tokenizer. `max_tokens` bounds prompt plus answer of a sequence, in tokens.

    An outline is one whose weights are in other processes only: its modules cannot compute.
    """

    name: str
    model: Any
    tokenizer: Any
    architecture: Architecture
    fingerprint: str
    eos_ids: frozenset[int]
    max_tokens: int
    parameters: int
    """Number of parameters; a weight that two layers share counts once."""
    served_on: torch.device | None = None
    """The device of an outline's weights; None for a model with weights."""
    files: WeightFiles | None = None
    """The files that an outline's weights are in."""

    @property
    def is_outline(self) -> bool:
        return self.served_on is not None

    @property
    def device(self) -> torch.device:
        device: torch.device = self.served_on or next(self.model.parameters()).device
        return device

    @property
    def layer_devices(self) -> list[torch.device]:
        """The device of each layer, and so of its keys and values."""
        if self.served_on is not None:
            return [self.served_on] * len(layers_of(self.model, self.architecture))
        return [next(layer.parameters()).device for layer in layers_of(self.model, self.architecture)]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def vocabulary(self) -> int:
        """Number of logits, at least the number of the tokenizer's tokens."""
        return int(self.model.get_output_embeddings().out_features)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights, wherever they are."""
        return self.parameters * self.dtype.itemsize

    def values_of(self, name: str) -> Tensor:
        """The values of a parameter, by its path. Those of an outline are read from disk."""
        parameter: Tensor = self.model.get_parameter(name)
        if self.files is None:
            return parameter
        return self.files.find(names_of_parameters(self.model)[id(parameter)]).to(self.dtype)

    def kv_bytes_per_token(self, layers: int | None = None) -> int:
        """Bytes of keys and values per token, over all layers or over `layers` of them."""
        heads, width = self.kv_shape
        layers = self.model.config.num_hidden_layers if layers is None else layers
        return int(2 * layers * heads * width * self.dtype.itemsize)

    @property
    def kv_shape(self) -> tuple[int, int]:
        """(number of key-value heads, width of a head)."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(heads), int(width)


def pick_device(device: str) -> torch.device:
    """Resolves a device name; `auto` is CUDA if available. Raises InvalidRequest for a missing GPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    picked = torch.device(device)
    if picked.type == "cuda":
        _check_cuda(device, picked.index or 0)
    return picked


def _check_cuda(device: str, index: int) -> None:
    otherwise = "or use the device `cpu` or `auto` (--device, ERRATA_DEVICE)."
    if torch.version.cuda is None and torch.version.hip is None:
        raise InvalidRequest(
            f"The device {device} needs a torch that is built with CUDA, and {torch.__version__} is not: install one "
            f"(https://pytorch.org/get-started), {otherwise}"
        )
    if not torch.cuda.is_available():
        raise InvalidRequest(f"torch finds no GPU for the device {device}: check `nvidia-smi`, {otherwise}")
    if index >= (count := torch.cuda.device_count()):
        raise InvalidRequest(f"There is no device {device}: this machine has {count}, the first is cuda:0.")


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    picked = getattr(torch, dtype)
    assert isinstance(picked, torch.dtype)
    return picked


def load_model(
    name: str,
    *,
    label: str | None = None,
    model_revision: str | None = None,
    device: torch.device,
    dtype: torch.dtype,
    device_map: str | None = None,
    max_tokens: int | None = None,
) -> HostedModel:
    """Loads a folder or hub name onto `device`, or over all GPUs by `device_map`.

    Weights that are quantised are computed with as numbers of `dtype`. Raises UnknownModel if it cannot be found,
    UnsupportedModel for its architecture, for quantised weights that cannot be read, or if it does not fit the GPUs.
    """
    if device_map is not None and find_spec("accelerate") is None:
        raise UnsupportedModel("A `device_map` needs the package accelerate: pip install accelerate.")
    with named(name):
        config = AutoConfig.from_pretrained(name, revision=model_revision)
        architecture = architecture_of(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=model_revision)
        if is_quantised(config):
            if device_map is not None:
                raise UnsupportedModel("A model with quantised weights takes no `device_map`: name one device.")
            model = _outline(name, model_revision, config, dtype)
            files = WeightFiles(name, model_revision, model)
            fill(model, files, names_of_parameters(model), device, dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                name, revision=model_revision, dtype=dtype, attn_implementation="sdpa", device_map=device_map
            )
    if device_map is None:
        model.to(device)
    elif device.type == "cuda" and (left := {each.device.type for each in model.parameters()} - {"cuda"}):
        raise UnsupportedModel(
            f"The model {name!r} does not fit the GPUs here: device_map={device_map!r} leaves layers to the CPU or the "
            f"disk ({', '.join(sorted(left))}). Free memory on them, or take a smaller dtype or model."
        )
    return host(model, tokenizer, name=label or name, architecture=architecture, max_tokens=max_tokens)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Turns errors of the hub and of files into UnknownModel, with the model's name."""
    try:
        yield
    except (OSError, ValueError) as error:
        where = "it holds no model in Hugging Face format" if Path(name).is_dir() else "no such folder or hub name"
        raise UnknownModel(
            f"The model {name!r} cannot be loaded ({where}): give a folder with config, tokenizer and safetensors, "
            f"or a hub name. Cause: {str(error).splitlines()[0]}",
            model=name,
        ) from error


def load_outline(
    name: str,
    *,
    label: str | None = None,
    model_revision: str | None = None,
    device: torch.device,
    dtype: torch.dtype,
    max_tokens: int | None = None,
) -> HostedModel:
    """Loads a folder or hub name without keeping its weights, for a server whose model runs in other processes. They
    are read once, one at a time, for the fingerprint, which is that of the model with weights.

    Raises UnknownModel if it cannot be found, UnsupportedModel for its architecture or weights in another format.
    """
    with named(name):
        config = AutoConfig.from_pretrained(name, revision=model_revision)
        architecture = architecture_of(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=model_revision)
        model = _outline(name, model_revision, config, dtype)
        files = WeightFiles(name, model_revision, model)
    names = names_of_parameters(model)
    model.eval().requires_grad_(False)
    return HostedModel(
        name=label or name,
        model=model,
        tokenizer=tokenizer,
        architecture=architecture,
        fingerprint=fingerprint(
            ((key, files.find(names[id(each)]), dtype) for key, each in model.named_parameters()), tokenizer
        ),
        eos_ids=_eos_ids(model, tokenizer),
        max_tokens=_max_tokens(config, max_tokens),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        served_on=device,
        files=files,
    )


def _outline(name: str, model_revision: str | None, config: Any, dtype: torch.dtype) -> Any:
    model = modules_without_weights(config, dtype)
    with suppress(OSError):  # a model without such a file takes the defaults
        model.generation_config = GenerationConfig.from_pretrained(name, revision=model_revision or "main")
    return model


def host(
    model: Any, tokenizer: Any, *, name: str, architecture: Architecture | None = None, max_tokens: int | None = None
) -> HostedModel:
    """Freezes a loaded model: no parameter takes a gradient and no dropout runs."""
    architecture = architecture or architecture_of(model.config.model_type)
    model.eval().requires_grad_(False)
    hosted = HostedModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        architecture=architecture,
        fingerprint=fingerprint(((key, each, each.dtype) for key, each in model.named_parameters()), tokenizer),
        eos_ids=_eos_ids(model, tokenizer),
        max_tokens=_max_tokens(model.config, max_tokens),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    use_onednn(model)  # last: it discards the plain weights
    return hosted


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


def _max_tokens(config: Any, wanted: int | None) -> int:
    """The model's context length, limited to `wanted` and to a sliding window.

    Within its window a sliding layer attends to everything, so the slots' plain cache is correct; beyond it, it is not.
    """
    own = getattr(config, "max_position_embeddings", None) or 4096
    limit = min(own, wanted or own)
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in types if types is not None else window is not None
    return min(limit, window) if slides and window else limit


@torch.no_grad()
def fingerprint(parameters: Iterable[tuple[str, Tensor, torch.dtype]], tokenizer: Any) -> str:
    """SHA-256 over names, shapes and evenly sampled values of all parameters, and over the tokenizer. Each
    parameter comes with the dtype in which it is computed."""
    digest = hashlib.sha256()
    for name, parameter, dtype in parameters:
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // _SAMPLED)].to(dtype).float().cpu().contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} ".encode())
        digest.update(sample.numpy().tobytes())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update((backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))).encode())
    return digest.hexdigest()
