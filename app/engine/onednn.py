"""Linear layers of a frozen float32 model on a CPU, by oneDNN where torch takes MKL.

MKL has no fast path for AMD's processors and none for few rows anywhere: the products of a 47M Llama's decode step
took 12.6, 22.6 and 48.8 ms at 1, 16 and 64 rows, by oneDNN 5.5, 7.5 and 17.1 (2 cores of an AMD EPYC). A row comes out
bit for bit the same whatever number of rows, from two on, it is multiplied with. Weights are frozen: each is laid out
once as oneDNN likes it, where memory allows a second copy, and gradients flow to the input alone.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_log = logging.getLogger(__name__)
ROOM = 4
"""Times its own size that a model must leave free for a second copy of its weights."""
SHAPES_KEPT = 256
_ROWS = 16
"""Laid out for so many; others are served as well."""


class _Linear(torch.autograd.Function):
    """(..., D_in) @ weight (D_out, D_in)^T + bias; `laid_out` is the weight as oneDNN likes it, or the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, laid_out: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _product(x, laid_out, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(grad, ctx.weight.t(), None), None, None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return found


def _forward(plain: Callable[[Tensor], Tensor], laid_out: Tensor, weight: Tensor, bias: Any, x: Tensor) -> Tensor:
    if x.dtype != torch.float32 or not x.numel():
        return plain(x)
    if not torch.is_grad_enabled():
        return _product(x, laid_out, bias)
    product: Tensor = _Linear.apply(x, laid_out, weight, bias)  # type: ignore[no-untyped-call]
    return product


def use_onednn(model: nn.Module, free_bytes: float) -> None:
    """Has the model's linear layers computed by oneDNN, if it is float32 on a CPU and this torch can."""
    # before oneDNN is first used: what it keeps of each shape that it has met, and prompts have many, took 20 MB more
    # every 20,000 requests; with fewer shapes kept requests take no longer
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES_KEPT))
    first = next(model.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32 or not works():
        return
    roomy = ROOM * sum(each.numel() * each.element_size() for each in model.parameters()) < free_bytes
    if not roomy:
        _log.warning("Weights are not laid out for oneDNN: memory is short. Steps take about a third longer.")
    for each in model.modules():
        if type(each) in (nn.Linear, Conv1D) and not _changed(each):
            module: Any = each
            weight = module.weight.detach() if type(each) is nn.Linear else module.weight.detach().t()
            laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if roomy else weight
            bias = None if module.bias is None else module.bias.detach()
            module.forward = partial(_forward, module.forward, laid_out, weight, bias)


@contextmanager
def without_onednn(model: nn.Module) -> Iterator[None]:
    """The model as torch computes it by itself: for whoever is compared with."""
    found = {module: module.__dict__.pop("forward") for module in model.modules() if _changed(module)}
    try:
        yield
    finally:
        for module, forward in found.items():
            module.forward = forward


def _changed(module: nn.Module) -> bool:
    forward = module.__dict__.get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def works() -> bool:
    """Whether this torch has the operators, which are not part of its public interface, and they compute products."""
    x, weight, bias = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 2, 20).view(5, 4), torch.ones(5)
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        found = [_Linear.apply(x, each, weight, bias) for each in (laid_out, weight)]  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    expected = F.linear(x, weight, bias)
    return all(torch.allclose(each, expected, atol=1e-5) for each in found)
