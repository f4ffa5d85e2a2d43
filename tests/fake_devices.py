"""Devices that are not there: shapes and places are worked out, nothing is computed, and mixing devices is an error.

torch's fake tensors do that, but for what asks a device's driver before torch's dispatcher: that is gone around here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from app.compat import CACHE
from app.editors.fitting.sites import architecture_of, layers_of
from app.engine.model import HostedModel
from tests.models import TINY

FIRST, SECOND = torch.device("cuda:0"), torch.device("cuda:1")
_aten = torch.ops.aten


@contextmanager
def fake_devices() -> Iterator[None]:
    with FakeTensorMode(), _WithoutDriver():
        yield


class _WithoutDriver(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__:
            x, at = _taken_apart(*args)
            return _aten.index(x, at) if at else x
        if func is torch.Tensor.__setitem__:
            x, at = _taken_apart(*args[:2])
            return _aten.index_put_(x, at, args[2]) if at else _aten.copy_(x, args[2])
        if func is torch.Tensor.contiguous:
            return _aten.clone(args[0], memory_format=torch.contiguous_format)
        if func is torch.tensor and (device := kwargs.pop("device", None)) is not None:
            return torch.tensor(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def _taken_apart(x: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """The view that plain numbers and slices give, and the tensors by dimension; none if there are none."""
    tensors: dict[int, Tensor] = {}
    dim = 0
    for each in _spelt_out(x, index if isinstance(index, tuple) else (index,)):
        if each is None:
            x = _aten.unsqueeze(x, dim)
            dim += 1
        elif isinstance(each, int):
            x = _aten.select(x, dim, each)
        elif isinstance(each, slice):
            x = x if each == slice(None) else _aten.slice(x, dim, each.start, each.stop, each.step or 1)
            dim += 1
        else:
            tensors[dim] = torch.tensor(each) if isinstance(each, list) else each
            dim += tensors[dim].ndim if tensors[dim].dtype == torch.bool else 1
    places = {tensor.device for tensor in tensors.values()} - {torch.device("cpu"), x.device}
    if places:
        raise RuntimeError(f"a tensor on {x.device} is indexed by one on {places}")
    return x, [tensors.get(dim) for dim in range(x.ndim)] if tensors else []


def _spelt_out(x: Tensor, index: tuple[Any, ...]) -> tuple[Any, ...]:
    if (at := next((at for at, each in enumerate(index) if each is Ellipsis), None)) is None:
        return index
    said = sum(each is not None for each in index) - 1
    return (*index[:at], *[slice(None)] * (x.ndim - said), *index[at + 1 :])


def spread_llama() -> HostedModel:
    """The lower half of its layers on the first device, the rest on the second, as accelerate would have it."""
    config, model_class, arguments = TINY["llama"]
    model = model_class(config(**arguments)).eval()
    hosted = HostedModel(
        name="spread",
        model=model,
        tokenizer=None,
        architecture=architecture_of(model.config.model_type),
        fingerprint="",
        eos_ids=frozenset((0,)),
        max_tokens=256,
        parameters=sum(each.numel() for each in model.parameters()),
    )
    layers = layers_of(model, hosted.architecture)
    for at, layer in enumerate(layers):
        _put(layer, FIRST if at < len(layers) // 2 else SECOND)
    for block, device in (
        (model.model.embed_tokens, FIRST), (model.model.rotary_emb, FIRST), (model.model.norm, SECOND),
        (model.lm_head, SECOND),
    ):  # fmt: skip
        _put(block, device)
    _hook(model, FIRST, io_same_device=True)
    return hosted


def _put(block: nn.Module, device: torch.device) -> None:
    for module in block.modules():
        for held in (module._parameters, module._buffers):
            for name, value in list(held.items()):
                if value is not None:
                    moved = torch.empty_like(value, device=device)
                    held[name] = nn.Parameter(moved, requires_grad=False) if held is module._parameters else moved
    _hook(block, device)


class _InPlace(AlignDevicesHook):  # type: ignore[misc]
    """Moves what goes in and out; the weights are where they are."""

    def init_hook(self, module: nn.Module) -> nn.Module:
        return module


def _hook(module: nn.Module, device: torch.device, *, io_same_device: bool = False) -> None:
    hook = _InPlace(execution_device=device, io_same_device=io_same_device, skip_keys=[CACHE])
    add_hook_to_module(module, hook)
