"""Reads a GGUF file's header and refuses, before anything is unpacked, what cannot be served."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import UnknownModel, UnsupportedModel
from app.editors.fitting.sites import ARCHITECTURES

_MAGIC = b"GGUF"
_ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Header fields that are needed beyond what transformers reads."""

    architecture: str
    values: int
    """Total number of weights, without the factors of the rotary frequencies."""
    context: int
    head_width: int | None
    rope: Mapping[str, Any]
    """Scaling of rotary embeddings in the form of transformers' `rope_parameters`; empty if there is none."""


def is_gguf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def supported() -> list[str]:
    """Architectures that transformers reads from GGUF and that are served with edits."""
    from gguf import MODEL_ARCH_NAMES
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    return sorted(set(GGUF_SUPPORTED_ARCHITECTURES) & set(MODEL_ARCH_NAMES.values()) & set(ARCHITECTURES))


def read_header(file: Path) -> GgufHeader:
    """Reads the header. Raises UnknownModel for a truncated or damaged file, UnsupportedModel for an unsupported
    architecture."""
    from gguf import GGUFReader

    try:
        reader: Any = GGUFReader(file)  # raises unless all tensors lie inside the file
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        cause = str(error).splitlines()[0] if str(error) else repr(error)
        raise UnknownModel(
            f"{file} is no whole GGUF file: it is cut short or damaged ({file.stat().st_size:,} bytes are here). "
            f"Get it again. Cause: {cause}"
        ) from error
    architecture = _value(reader, "general.architecture")
    if architecture not in (known := supported()):
        raise UnsupportedModel(
            f"The GGUF file {file} holds a model of architecture {architecture!r}, which cannot be served with edits. "
            f"Supported in GGUF files: {', '.join(known)}."
        )
    if (parts := _value(reader, "split.count") or 1) > 1:
        raise UnsupportedModel(
            f"The GGUF file {file} is one of {parts} parts: join them first, with "
            f"llama-gguf-split --merge {file.name} whole.gguf"
        )
    context = _value(reader, f"{architecture}.context_length")
    return GgufHeader(
        architecture=architecture,
        values=sum(int(tensor.n_elements) for tensor in reader.tensors if tensor.name != _ROPE_FACTORS),
        context=context,
        head_width=_value(reader, f"{architecture}.attention.key_length"),
        rope=_rope(reader, file, architecture, context),
    )


def _rope(reader: Any, file: Path, architecture: str, context: int) -> dict[str, Any]:
    """Rotary scaling, which transformers does not read from GGUF. Llama 3's frequency factors become a `longrope` with
    the same factors at any length."""
    for tensor in reader.tensors:
        if tensor.name == _ROPE_FACTORS:
            factors = [float(factor) for factor in tensor.data]
            return {
                "rope_type": "longrope",
                "short_factor": factors,
                "long_factor": factors,
                "attention_factor": 1.0,
                "original_max_position_embeddings": context,
            }
    kind = _value(reader, f"{architecture}.rope.scaling.type") or "none"
    if kind == "none":
        return {}
    if kind not in ("linear", "yarn"):
        raise UnsupportedModel(
            f"The GGUF file {file} scales its rotary embeddings by {kind!r}, which is not read: linear and yarn are."
        )
    factor = float(_value(reader, f"{architecture}.rope.scaling.factor") or 1.0)
    scaled: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        original = _value(reader, f"{architecture}.rope.scaling.original_context_length")
        scaled["original_max_position_embeddings"] = original or int(context / factor)
    return scaled


def _value(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()
