"""Decode steps of Llama-like models on a CPU, as few operations on the model's own layers.

transformers' modules take some thirty operations and as many module calls for a layer; this takes fifteen, reads keys
and values of grouped heads where they lie, and computes each row's attention no wider than its neighbours need.
Weights, norms and rotary embeddings are the model's own, so that what is computed is the same but for rounding; a start
compares the two. Knows no sequences and no editors: what acts at a site is handed on by the hooks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.editors.fitting.hooks import SiteHooks
from app.engine.kv_cache import SlotCache
from app.engine.model import HostedModel
from app.engine.onednn import FrozenLinear

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
WIDTH_STEP = 64
"""Attention is as wide as the longest row, rounded up to a multiple of it: few shapes, so that sums are taken in the
same order more often."""
ANOTHER_CALL = 256
"""Columns that may be computed in vain before rows of different lengths get a call of their own."""


class LeanDecode:
    """One token a row through the layers of `hosted`, over the slots of `cache`."""

    def __init__(self, hosted: HostedModel, hooks: SiteHooks, cache: SlotCache) -> None:
        self._hooks, self._cache = hooks, cache
        model: Any = hosted.model
        self._embed, self._norm, self._head = model.model.embed_tokens, model.model.norm, model.lm_head
        self._rotary, self._layers = model.model.rotary_emb, list(model.model.layers)
        path = hosted.architecture.layers
        self._sites = [(f"{path}.{at}.mlp", f"{path}.{at}.mlp.down_proj") for at in range(len(self._layers))]
        self._known = frozenset(site for sites in self._sites for site in sites)
        attention = self._layers[0].self_attn
        self._d_head, self._scaling = attention.head_dim, attention.scaling
        self._kv_heads = attention.k_proj.out_features // self._d_head
        half = self._d_head // 2
        self._sign = torch.cat([-torch.ones(half), torch.ones(half)])

    @staticmethod
    def takes(hosted: HostedModel) -> bool:
        """Whether the model is one of the families, whole on a CPU, with linear layers by oneDNN."""
        model: Any = hosted.model
        return (
            model.config.model_type in FAMILIES
            and hosted.device.type == "cpu"
            and getattr(model.config, "hidden_act", None) == "silu"
            and isinstance(model.lm_head, FrozenLinear)
            and not any(isinstance(each, nn.Linear) for each in model.modules())
        )

    def can(self) -> bool:
        """Whether all that acts in this pass acts at a site that it passes by."""
        return self._hooks.acting.keys() <= self._known

    def logits(self, slots: Sequence[int], starts: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Slots, ascending, the position that each row's token has (-1: idle), the tokens -> (B, V) fp32."""
        pad = self._cache.max_tokens
        positions = torch.tensor([[max(0, start)] for start in starts])
        columns = [start if start >= 0 else pad for start in starts]
        at = torch.tensor([slot * (pad + 1) + column for slot, column in zip(slots, columns, strict=True)])
        hidden: Tensor = self._embed(torch.tensor(ids))
        cos, sin = self._rotary(hidden[:, None], positions)  # (B, 1, D_head) each
        sin = sin * self._sign.to(sin.dtype)
        groups = [
            (rows, _together(slots[rows]), width, _mask(positions[rows], width, hidden.dtype))
            for rows, width in _groups(starts, self._cache.max_tokens)
        ]
        acting = self._hooks.acting
        every = self._cache.layers_states(self._kv_heads, self._d_head, hidden.dtype)
        for layer, states, sites in zip(self._layers, every, self._sites, strict=True):
            x = _normed(layer.input_layernorm, hidden)
            attended = self._attention(layer.self_attn, x, cos, sin, states, at, groups)
            hidden = hidden + layer.self_attn.o_proj.product(attended)
            hidden = self._ffn(layer, hidden, *(acting.get(site) for site in sites))
        logits: Tensor = self._head.product(_normed(self._norm, hidden))
        return logits.float()

    def _attention(
        self, attention: Any, x: Tensor, cos: Tensor, sin: Tensor, states: Tensor, at: Tensor, groups: Sequence[Any]
    ) -> Tensor:
        """(B, D) -> (B, H * D_head): keys and values are written at `at`, then read by groups of rows."""
        rows, d_head, kv_heads = len(x), self._d_head, self._kv_heads
        query, key = attention.q_proj.product(x), attention.k_proj.product(x)
        if hasattr(attention, "q_norm"):
            query = attention.q_norm(query.view(rows, -1, d_head)).view(rows, -1)
            key = attention.k_norm(key.view(rows, -1, d_head)).view(rows, -1)
        both = torch.cat([query, key], -1).view(rows, -1, d_head)
        both = torch.addcmul(both * cos, both.roll(d_head // 2, -1), sin)
        heads = both.shape[1] - kv_heads
        written = torch.cat([both[:, heads:].flatten(1), attention.v_proj.product(x)], -1)
        states.flatten(0, 1).flatten(1).index_copy_(0, at, written)
        # the heads that share keys and values are queries of one head
        query = both[:, :heads].view(rows, kv_heads, -1, d_head)
        found = [
            F.scaled_dot_product_attention(
                query[mine],
                states[slots, :width, 0].transpose(1, 2),
                states[slots, :width, 1].transpose(1, 2),
                mask,
                scale=self._scaling,
            )
            for mine, slots, width, mask in groups
        ]
        return (found[0] if len(found) == 1 else torch.cat(found)).reshape(rows, -1)

    def _ffn(self, layer: Any, hidden: Tensor, act: Any, act_down: Any) -> Tensor:
        """(B, D) -> (B, D): the residual stream after the FFN, with what acts at its output and its down-projection."""
        mlp = layer.mlp
        x = _normed(layer.post_attention_layernorm, hidden)
        inner = F.silu(mlp.gate_proj.product(x), inplace=True).mul_(mlp.up_proj.product(x))
        out: Tensor = mlp.down_proj.product(inner)
        if act_down is not None:
            out = act_down(inner[:, None], out[:, None])[:, 0]
        if act is not None:
            out = act(x[:, None], out[:, None])[:, 0]
        return hidden + out


def _together(slots: Sequence[int]) -> slice | list[int]:
    """Slots side by side are read where they lie; of others a copy is read."""
    dense = slots[-1] - slots[0] + 1 == len(slots)
    return slice(slots[0], slots[-1] + 1) if dense else list(slots)


def _mask(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(B, 1) positions -> (B, 1, 1, W): zero where a row may attend, minus infinity beyond."""
    mask = torch.zeros(len(positions), width, dtype=dtype)
    return mask.masked_fill_(torch.arange(width) > positions, float("-inf"))[:, None, None]


def _normed(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _groups(starts: Sequence[int], most: int) -> list[tuple[slice, int]]:
    """Rows side by side that attend equally wide, (rows, width) each: one long row shall not widen all the others."""
    found: list[tuple[slice, int]] = []
    first, width = 0, 0
    for row, start in enumerate(starts):
        own = min(most, -(-max(1, start + 1) // WIDTH_STEP) * WIDTH_STEP)
        count, wider = row - first, max(width, own)
        if count and (count + 1) * wider - count * width - own > ANOTHER_CALL:
            found.append((slice(first, row), width))
            first, wider = row, own
        width = wider
    return [*found, (slice(first, len(starts)), width)]
