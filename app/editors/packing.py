"""An edit's tensors as bytes and back, in safetensors format. Damaged and hostile bytes are refused."""

from collections.abc import Iterable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from app.domain.errors import IncompatibleEdit

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all values of all tensors are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as bytes."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of `pack`. Raises IncompatibleEdit if the bytes hold anything but finite tensors of DTYPES."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise IncompatibleEdit(f"The edit's tensors cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or not torch.isfinite(tensor).all():
            kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise IncompatibleEdit(f"The edit's tensor {name!r} ({tensor.dtype}) must have finite values of {kinds}.")
    return tensors
