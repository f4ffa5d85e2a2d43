"""A second copy of the encoder's upper layers, tuned by low-rank additions to tell questions apart (LoRA, arXiv
2106.09685).

An encoder is trained to bring texts of one topic together, and its last layers lose the difference between `from Ulm to
Bonn` and `from Bonn to Ulm`. The pair scorer reads the tuned layers in their place. The vectors by which similar
questions are found remain those of the original encoder.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

RANK, SCALE = 16, 2.0


class LowRankLinear(nn.Module):
    """A frozen linear layer with a learned low-rank addition."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (..., in) -> (..., out)."""
        addition: Tensor = x @ self.down.T @ self.up.T
        return self.linear(x) + SCALE * addition  # type: ignore[no-any-return]

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same."""
        self.linear.weight.data += SCALE * (self.up @ self.down).detach()
        return self.linear


class TunedLayers(nn.Module):
    """The layers of a BERT-like encoder from its middle on. Untrained, they compute the same as the originals."""

    def __init__(self, layers: nn.ModuleList, rank: int = RANK) -> None:
        super().__init__()
        self.layers = copy.deepcopy(layers).requires_grad_(requires_grad=False)
        self.rank = rank
        for holder, name in self._linear():
            setattr(holder, name, LowRankLinear(getattr(holder, name), rank))

    def _linear(self) -> list[tuple[Any, str]]:
        """Each linear layer's parent and attribute name."""
        places: list[tuple[Any, str]] = []
        for layer in self.layers:
            each: Any = layer
            places += [(each.attention.self, name) for name in ("query", "key", "value")]
            places += [(each.attention.output, "dense"), (each.intermediate, "dense"), (each.output, "dense")]
        return places

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Apply the layers to the middle layer's states `hidden` (B, T, E); `real` (B, T) marks tokens. -> (B, T,
        E)."""
        mask = real[:, None, None, :].bool()
        size = hidden.shape
        for each in self.layers:
            layer: Any = each
            own = layer.attention.self
            heads = (size[0], size[1], own.num_attention_heads, -1)
            q, k, v = (read(hidden).view(heads).transpose(1, 2) for read in (own.query, own.key, own.value))
            seen = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(size)
            out = layer.attention.output
            hidden = out.LayerNorm(out.dense(seen) + hidden)
            inner = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(hidden))
            hidden = layer.output.LayerNorm(layer.output.dense(inner) + hidden)
        return hidden

    def learned(self) -> dict[str, Tensor]:
        """The learned tensors, by name."""
        return {name: each for name, each in self.named_parameters() if name.endswith((".up", ".down"))}

    @staticmethod
    def rank_of(learned: Mapping[str, Tensor]) -> int:
        """The rank of the additions whose learned tensors these are."""
        return next(each.shape[0] for name, each in learned.items() if name.endswith(".down"))

    def with_learned(self, learned: Mapping[str, Tensor]) -> "TunedLayers":
        """The layers with learned tensors merged in, for serving."""
        self.load_state_dict({name: each.float() for name, each in learned.items()}, strict=False)
        for holder, name in self._linear():
            setattr(holder, name, getattr(holder, name).merged())
        return self.eval()
