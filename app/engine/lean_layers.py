"""The layers of a Llama-like model for one decode step, in TorchScript.

A step of thirty layers is some five hundred small operations. Called from Python, each of them needs the interpreter's
lock, which the threads that receive requests and stream answers also want. A compiled function takes it once.

The source is compiled by TorchScript's own parser (`torch.jit.CompilationUnit`), so that it is TorchScript and not
Python: `number` is its scalar type, and oneDNN's operator takes a list of them.
"""

import logging
from functools import cache
from typing import Any

import torch

_log = logging.getLogger(__name__)

SOURCE = """
def product(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    scalars: List[Optional[number]] = []
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", scalars, "")


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return torch.rms_norm(x, weight.size(), weight, epsilon)


def attend(
    hidden: Tensor, cos: Tensor, sin: Tensor, at: Tensor,
    groups: List[Tuple[int, int, int, int, Optional[Tensor], Tensor]],
    states: Tensor, weights: List[Tensor], biases: List[Optional[Tensor]], norms: List[Tensor],
    epsilon: float, scaling: float,
) -> Tensor:
    rows = hidden.size(0)
    d_head = cos.size(-1)
    kv_heads = states.size(3)
    read = product(normed(hidden, norms[0], epsilon), weights[0], biases[0]).view(rows, -1, d_head)
    turning, heads = read.size(1) - kv_heads, read.size(1) - 2 * kv_heads
    turned = read[:, :turning]
    if len(norms) > 2:
        of_keys = normed(turned[:, heads:], norms[3], epsilon)
        turned = torch.cat([normed(turned[:, :heads], norms[2], epsilon), of_keys], 1)
    rotated = torch.addcmul(turned * cos, torch.roll(turned, [d_head // 2], [-1]), sin)
    written = torch.cat([rotated[:, heads:], read[:, turning:]], 1).flatten(1)
    states.flatten(0, 1).flatten(1).index_copy_(0, at, written)
    # query heads that share keys and values become queries of one head
    query = rotated[:, :heads].reshape(rows, kv_heads, -1, d_head)
    parts: List[Tensor] = []
    for first, last, width, first_slot, slots, mask in groups:
        held = states.narrow(1, 0, width)
        held = held.narrow(0, first_slot, last - first) if slots is None else held.index_select(0, slots)
        parts.append(
            torch._C._nn.scaled_dot_product_attention(
                query[first:last], held[:, :, 0].transpose(1, 2), held[:, :, 1].transpose(1, 2), mask, scale=scaling
            )
        )
    attended = parts[0] if len(parts) == 1 else torch.cat(parts)
    return hidden + product(attended.reshape(rows, -1), weights[1], biases[1])


def feed_forward(
    hidden: Tensor, weights: List[Tensor], biases: List[Optional[Tensor]], norms: List[Tensor], epsilon: float
) -> Tensor:
    gate, up = product(normed(hidden, norms[1], epsilon), weights[2], biases[2]).chunk(2, -1)
    return hidden + product(torch._C._nn.silu(gate).mul_(up), weights[3], biases[3])


def run(
    hidden: Tensor, begin: int, end: int, cos: Tensor, sin: Tensor, at: Tensor,
    groups: List[Tuple[int, int, int, int, Optional[Tensor], Tensor]],
    states: List[Tensor], weights: List[List[Tensor]], biases: List[List[Optional[Tensor]]], norms: List[List[Tensor]],
    epsilon: float, scaling: float,
) -> Tensor:
    for layer in range(begin, end):
        hidden = attend(
            hidden, cos, sin, at, groups, states[layer], weights[layer], biases[layer], norms[layer], epsilon, scaling
        )
        hidden = feed_forward(hidden, weights[layer], biases[layer], norms[layer], epsilon)
    return hidden
"""
"""`hidden` is (B, D), `cos` and `sin` are (B, 1, D_head), and `at` (B,) has each row's place among all tokens of
`states` (S, L + 1, 2, H, D_head), where its key and value are written.

A group is (first row, end of rows, width, first slot, slots or None if they are adjacent, mask): its rows read the
first `width` tokens of their slots. A layer's `weights` and `biases` are those of q, k and v as one, of o, of gate and
up as one, and of down. Its `norms` are those before the attention and the FFN, followed by those of the heads of
queries and keys if it has them.
"""


@cache
def compiled() -> Any:
    """The functions of SOURCE, compiled; None, with a warning, if this torch lacks what they call."""
    try:
        return torch.jit.CompilationUnit(SOURCE)
    except (AttributeError, RuntimeError) as error:
        _log.warning(
            "Decode steps run the model's own modules, as torch %s does not compile ours: %s", torch.__version__, error
        )
        return None
