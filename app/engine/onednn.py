"""Linear layers of a frozen model on a CPU, by oneDNN, each weight held once in the layout that oneDNN prefers.

torch gives float32 products to MKL, which has no fast path for AMD's processors nor for few rows anywhere. From two
rows on, a row comes out bit for bit the same whatever other rows it is multiplied with.

The plain weight is given up once its layout is made, so that the model takes no more memory than before. Whoever needs
it, as the backward pass of a fit does, gets it converted back; `release_dense` ends what a fit kept of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

SHAPES_KEPT = 256
_ROWS = 16
"""The number of rows that layouts are chosen for; other numbers are served as well."""
_linear = torch.ops.mkldnn._linear_pointwise


class FrozenLinear(nn.Module):
    """x (..., in_features) -> (..., out_features), as `nn.Linear` computes it. The weight is frozen.

    `laid_out` is the weight (out_features, in_features), either plain or in oneDNN's layout. `fan_in_fan_out` says that
    the model itself keeps it the other way round, as GPT-2 does.
    """

    def __init__(self, laid_out: Tensor, bias: Tensor | None, fan_in_fan_out: bool = False) -> None:
        super().__init__()
        self.fan_in_fan_out = fan_in_fan_out
        self.out_features, self.in_features = laid_out.shape
        self.dtype = laid_out.dtype
        self.laid_out, self.bias = laid_out, bias
        self._dense: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """(out_features, in_features): the plain weight; a copy where it is laid out otherwise."""
        return self.laid_out.to_dense() if self.laid_out.is_mkldnn else self.laid_out

    def dense(self) -> Tensor:
        """The plain weight, kept until `release`: each step of a fit multiplies with it."""
        if self._dense is None:
            self._dense = self.weight
        return self._dense

    def release(self) -> None:
        self._dense = None

    def forward(self, x: Tensor) -> Tensor:
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], self.out_features)
        if x.dtype != self.dtype:
            return F.linear(x, self.dense(), self.bias)
        if not torch.is_grad_enabled():
            return self.product(x)
        product: Tensor = _Linear.apply(x, self)  # type: ignore[no-untyped-call]
        return product

    def product(self, x: Tensor) -> Tensor:
        """The same where no gradient is wanted."""
        found: Tensor = _linear(x.contiguous(), self.laid_out, self.bias, "none", [], "")
        return found

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight.t() if self.fan_in_fan_out else self.weight
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias.detach()


class _Linear(torch.autograd.Function):
    """A frozen linear layer with a gradient for its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        plain: Tensor = ctx.layer.dense().t()
        return _linear(grad.contiguous(), plain, None, "none", [], ""), None


def use_onednn(model: nn.Module) -> None:
    """Replaces the model's linear layers by `FrozenLinear`, if it is on a CPU and this torch has the operators."""
    # before oneDNN is first used: what it keeps of each shape that it has met, and prompts have many, took 20 MB more
    # every 20,000 requests; with fewer shapes kept requests take no longer
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES_KEPT))
    first = next(model.parameters())
    if first.device.type != "cpu" or not works(first.dtype):
        return
    # a head may share its weight with the embeddings, which read its rows: laid out as well, it would stand twice
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    layers = list(_linear_layers(model))
    laid_out = {id(layer.weight) for _, _, layer in layers} - embeddings
    for each in model.parameters():
        if id(each) not in laid_out:  # as a view of the mapped file it would hold all of the file in memory
            each.data = each.data.clone()
    for parent, name, layer in layers:
        turned = type(layer) is Conv1D
        weight = layer.weight.detach().t().contiguous() if turned else layer.weight.detach()
        if id(layer.weight) in laid_out:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        setattr(parent, name, FrozenLinear(weight, None if layer.bias is None else layer.bias.detach(), turned))


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name, layer


def release_dense(model: nn.Module) -> None:
    """Gives up the plain weights that backward passes kept."""
    for each in model.modules():
        if isinstance(each, FrozenLinear):
            each.release()


@contextmanager
def without_onednn(model: nn.Module) -> Iterator[None]:
    """The model as torch computes it by itself, for comparisons. Its weights stand twice meanwhile."""
    replaced = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, FrozenLinear)
    ]
    try:
        for parent, name, layer in replaced:
            setattr(parent, name, _plain(layer))
        yield
    finally:
        for parent, name, layer in replaced:
            setattr(parent, name, layer)


def _plain(layer: FrozenLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(layer.weight, requires_grad=False)
    plain.register_parameter("bias", None if layer.bias is None else nn.Parameter(layer.bias, requires_grad=False))
    return plain


def works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this torch has the operators, which are not part of its public interface, and they compute products."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight, bias = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 2, 20).view(5, 4), torch.ones(5)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    try:
        if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        layers = [FrozenLinear(each, bias) for each in (torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), weight)]
        found = [_Linear.apply(x, layer) for layer in layers]  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    expected = F.linear(x, weight, bias)
    return all(torch.allclose(each, expected, atol=1e-5 if dtype is torch.float32 else 0.1) for each in found)
