"""Weights that a checkpoint keeps as integers of 8 bits, read as the numbers that they stand for.

vLLM computes with the integers. A fit differentiates through the layers, for which it needs the numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import UnsupportedModel

METHOD, FORMATS = "compressed-tensors", ("int-quantized", "pack-quantized")
"""The method of quantisation that is read, and its formats: an integer in each byte, or four in an int32."""
BITS = 8
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types whose values are the weights. Those of fewer bits have scales, or stand for something else."""


def is_quantised(config: Any) -> bool:
    """Tell whether a model's config says that weights of it are quantised."""
    return bool(_section(config))


def check_quantisation(name: str, config: Any) -> None:
    """Raise UnsupportedModel, with what it is, if a model's weights are quantised in a way that `read_weight` cannot
    read."""
    section = _section(config)
    method = section.get("quant_method", "a method without a name")
    if section and method != METHOD:
        raise _refusal(name, str(method))
    if (feature := next(_unreadable(section), None)) is not None:
        raise _refusal(name, f"{METHOD} with {feature}")


def _section(config: Any) -> Mapping[str, Any]:
    entry = getattr(config, "quantization_config", None) or {}
    section: Mapping[str, Any] = entry if isinstance(entry, Mapping) else entry.to_dict()
    return section


def _unreadable(section: Mapping[str, Any]) -> Iterator[str]:
    """The features of an entry of compressed-tensors in a config that cannot be read."""
    if section.get("transform_config"):
        yield "transforms of the weights"
    if (sparsity := (section.get("sparsity_config") or {}).get("format", "dense")) != "dense":
        yield f"the sparse format {sparsity}"
    for group in section.get("config_groups", {}).values():
        form = group.get("format") or section.get("format")
        weights = group.get("weights") or {}
        if form not in FORMATS:
            yield f"the format {form}"
        if (weights.get("type"), weights.get("num_bits")) != ("int", BITS):
            yield f"weights of the type {weights.get('type')} and {weights.get('num_bits')} bits"
        if weights.get("strategy") not in ("channel", "tensor"):
            yield f"scales by {weights.get('strategy')}"
        if not weights.get("symmetric", True):
            yield "zero points"


def _refusal(name: str, how: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"The weights of {name!r} are quantised by {how}, which Errata does not read, so that it could not fit edits: "
        f"take the model without quantisation, or quantised to int8 by {METHOD} (W8A8 or W8A16, with a scale for each "
        "channel or tensor). See /help/vllm#quantised-weights."
    )


def read_weight(name: str, read: Callable[[str], Tensor | None]) -> Tensor | None:
    """Return the numbers of a weight, by its path: (N, D) float32 if they are kept as integers. `read` returns a tensor
    of the files by its path; None if there is none, and so does this. Raises UnsupportedModel for what is no number by
    itself and has no scale."""
    kept = read(name)
    if kept is None and (packed := read(f"{name}_packed")) is not None:
        kept = _unpacked(packed, read(f"{name}_shape"))
    if kept is None or kept.dtype in FLOATS:
        return kept
    scale = read(f"{name}_scale")
    if kept.dtype is not torch.int8 or scale is None or tuple(scale.shape) not in ((), (1,), (len(kept), 1)):
        raise UnsupportedModel(
            f"The weight {name} is kept as {str(kept.dtype).removeprefix('torch.')} {tuple(kept.shape)}, without a "
            "scale for each of its rows or for all of it: Errata cannot read it. See /help/vllm#quantised-weights."
        )
    return kept.float() * scale.float()


def _unpacked(packed: Tensor, shape: Tensor | None) -> Tensor:
    """The integers (N, D) int8 of (N, D / 4) int32, rounded up. The lowest byte is the first, and 128 is zero."""
    shifts = torch.arange(0, 32, BITS, dtype=torch.int32)
    unsigned = (packed[..., None] >> shifts).bitwise_and((1 << BITS) - 1).flatten(-2)
    columns = unsigned.shape[-1] if shape is None else int(shape[-1])
    return (unsigned[..., :columns] - (1 << (BITS - 1))).to(torch.int8)
