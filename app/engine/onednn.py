"""Linear layers of a frozen model on a CPU through oneDNN, with each weight stored once, in oneDNN's layout.

torch passes float32 products to MKL, which has no fast path for AMD processors, nor for few rows on any. With two rows
or more, a row's result is bit-identical whatever rows accompany it.

The plain weight is discarded once its layout is made, so the model takes no more memory than before. The backward pass
of a fit converts it back; `release_dense` drops what fits have kept.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

SHAPES_KEPT = 256
_ROWS = 16
"""Number of rows that layouts are optimised for; other numbers work too."""
JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that read the same input in every supported model."""
_linear = torch.ops.mkldnn._linear_pointwise


class FrozenLinear(nn.Module):
    """x (..., in_features) -> (..., out_features), like `nn.Linear`, with a frozen weight.

    `laid_out` is the weight (out_features, in_features), plain or in oneDNN's layout. `fan_in_fan_out`: the model
    itself stores the transpose, as GPT-2 does.
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
        """The plain weight (out_features, in_features); a converted copy if it is in oneDNN's layout."""
        return self.laid_out.to_dense() if self.laid_out.is_mkldnn else self.laid_out

    def dense(self) -> Tensor:
        """The plain weight, cached until `release`: each step of a fit multiplies with it."""
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
        """The forward pass without gradient."""
        product: Tensor = _linear(x.contiguous(), self.laid_out, self.bias, "none", [], "")
        return product

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.weight.t() if self.fan_in_fan_out else self.weight
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias.detach()


class JointLinear:
    """Layers that read the same input, as one: their weights are stacked in `whole`, so that one product computes them
    all.

    A model calls the layers one after the other with one tensor, on one thread, and does not write to it meanwhile. The
    first call computes the product, and each part is kept until its layer has taken it.
    """

    def __init__(self, whole: FrozenLinear, sizes: Sequence[int]) -> None:
        self.whole, self.sizes = whole, list(sizes)
        self._of: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def product(self, part: int, x: Tensor) -> Tensor:
        if self._of is None or not _same(self._of, x) or part not in self._parts:
            self._of = x
            self._parts = dict(enumerate(torch.split(self.whole.product(x), self.sizes, -1)))
        taken = self._parts.pop(part)
        if not self._parts:
            self._of = None
        return taken

    def release(self) -> None:
        """Drops what a pass that was broken off has left, and the plain weight."""
        self._of, self._parts = None, {}
        self.whole.release()


def _same(x: Tensor, other: Tensor) -> bool:
    """Compares by address, as autograd passes an alias. An address is not reused while a tensor there is kept."""
    return x.data_ptr() == other.data_ptr() and x.shape == other.shape and x.stride() == other.stride()


class JointPart(FrozenLinear):
    """One of the layers of `joint`, which stores its weight and bias. `laid_out` is that of all layers together."""

    def __init__(self, joint: JointLinear, part: int) -> None:
        begin = sum(joint.sizes[:part])
        rows = slice(begin, begin + joint.sizes[part])
        bias = joint.whole.bias
        super().__init__(joint.whole.laid_out, None if bias is None else bias[rows])
        self.out_features = joint.sizes[part]
        self.joint, self._part, self._rows = joint, part, rows

    @property
    def weight(self) -> Tensor:
        return self.joint.whole.weight[self._rows].clone()  # a view would keep the weights of all layers

    def dense(self) -> Tensor:
        return self.joint.whole.dense()[self._rows]

    def release(self) -> None:
        self.joint.release()

    def product(self, x: Tensor) -> Tensor:
        return self.joint.product(self._part, x)


class _Linear(torch.autograd.Function):
    """A frozen linear layer with a gradient for its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        plain: Tensor = ctx.layer.dense().t()
        return _linear(grad.contiguous(), plain, None, "none", [], ""), None


def use_onednn(model: nn.Module) -> None:
    """Replaces the model's linear layers by `FrozenLinear` if it is on a CPU and this torch has the operators."""
    # Set before oneDNN's first use: its cache of shapes, which prompts vary widely, grew by 20 MB per 20,000 requests;
    # a smaller cache is no slower.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(SHAPES_KEPT))
    first = next(model.parameters())
    if first.device.type != "cpu" or not works(first.dtype):
        return
    # A head may share its weight with the embeddings, which read its rows: in oneDNN's layout it would be stored twice.
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    _join(model)
    layers = list(_linear_layers(model))
    laid_out = {id(layer.weight) for _, _, layer in layers} - embeddings
    for each in model.parameters():
        if id(each) not in laid_out:  # a view of the mapped file would keep the whole file in memory
            each.data = each.data.clone()
    for parent, name, layer in layers:
        turned = type(layer) is Conv1D
        weight = layer.weight.detach().t().contiguous() if turned else layer.weight.detach()
        if id(layer.weight) in laid_out:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        setattr(parent, name, FrozenLinear(weight, None if layer.bias is None else layer.bias.detach(), turned))


def _join(model: nn.Module) -> None:
    """Replaces the layers of `JOINED` by parts of one."""
    for parent in list(model.modules()):
        for names in JOINED:
            layers: list[Any] = [getattr(parent, name, None) for name in names]
            if not all(isinstance(each, nn.Linear) for each in layers):
                continue
            if len({(each.in_features, each.bias is None, each.weight.dtype) for each in layers}) > 1:
                continue
            weight = torch.cat([each.weight.detach() for each in layers])
            bias = None if layers[0].bias is None else torch.cat([each.bias.detach() for each in layers])
            whole = FrozenLinear(torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), bias)
            joint = JointLinear(whole, [each.out_features for each in layers])
            for part, name in enumerate(names):
                setattr(parent, name, JointPart(joint, part))


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name, layer


def release_dense(model: nn.Module) -> None:
    """Drops the plain weights that backward passes have cached."""
    for each in model.modules():
        if isinstance(each, FrozenLinear):
            each.release()


@contextmanager
def without_onednn(model: nn.Module) -> Iterator[None]:
    """Runs the model with torch's own linear layers, for comparisons. Weights are stored twice meanwhile."""
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
    """True if this torch has the operators, which are not public, and they compute correct products."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight, bias = torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 2, 20).view(5, 4), torch.ones(5)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    try:
        if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        layers = [FrozenLinear(each, bias) for each in (torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), weight)]
        products = [_Linear.apply(x, layer) for layer in layers]  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    expected = F.linear(x, weight, bias)
    return all(torch.allclose(each, expected, atol=1e-5 if dtype is torch.float32 else 0.1) for each in products)
