"""Decode steps of Llama-like models on a CPU, with a minimal number of operations.

transformers' modules take about thirty operations and as many module calls per layer; this pass takes fifteen, reads
keys and values of grouped heads in place, and computes attention only as wide as neighbouring rows need. It uses the
model's own weights, norms and rotary embeddings, so results differ by rounding only, which is checked at start. It
knows no sequences and no editors: hooks supply what acts at a site.
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
"""Attention widths are rounded up to a multiple of it: fewer shapes keep the order of summation stable."""
MAX_WASTED_COLUMNS = 256
"""Number of superfluous columns that are tolerated before rows of different lengths get separate calls."""


class LeanDecode:
    """Runs one token per row through the layers of `hosted`, over the slots of `cache`."""

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
    def supports(hosted: HostedModel) -> bool:
        """True if the model belongs to a supported family, is entirely on a CPU, and has oneDNN linear layers."""
        model: Any = hosted.model
        return (
            model.config.model_type in FAMILIES
            and hosted.device.type == "cpu"
            and getattr(model.config, "hidden_act", None) == "silu"
            and isinstance(model.lm_head, FrozenLinear)
            and not any(isinstance(each, nn.Linear) for each in model.modules())
        )

    def can_run(self) -> bool:
        """True if everything that acts in this pass acts at a site that the pass covers."""
        return self._hooks.acting.keys() <= self._known

    def logits(self, slots: Sequence[int], starts: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Ascending slots, the position of each row's token (-1: idle), and the tokens -> (B, V) fp32 logits."""
        pad = self._cache.max_tokens
        positions = torch.tensor([[max(0, start)] for start in starts])
        columns = [start if start >= 0 else pad for start in starts]
        at = torch.tensor([slot * (pad + 1) + column for slot, column in zip(slots, columns, strict=True)])
        hidden: Tensor = self._embed(torch.tensor(ids))
        cos, sin = self._rotary(hidden[:, None], positions)  # (B, 1, D_head) each
        sin = sin * self._sign.to(sin.dtype)
        groups = [
            (rows, _index_of(slots[rows]), width, _mask(positions[rows], width, hidden.dtype))
            for rows, width in row_groups(starts, self._cache.max_tokens)
        ]
        acting = self._hooks.acting
        all_states = self._cache.layers_states(self._kv_heads, self._d_head, hidden.dtype)
        for layer, states, sites in zip(self._layers, all_states, self._sites, strict=True):
            x = _normed(layer.input_layernorm, hidden)
            attended = self._attention(layer.self_attn, x, cos, sin, states, at, groups)
            hidden = hidden + layer.self_attn.o_proj.product(attended)
            hidden = self._ffn(layer, hidden, *(acting.get(site) for site in sites))
        logits: Tensor = self._head.product(_normed(self._norm, hidden))
        return logits.float()

    def _attention(
        self, attention: Any, x: Tensor, cos: Tensor, sin: Tensor, states: Tensor, at: Tensor, groups: Sequence[Any]
    ) -> Tensor:
        """(B, D) -> (B, H * D_head): keys and values are written at `at`, then read by row groups."""
        rows, d_head, kv_heads = len(x), self._d_head, self._kv_heads
        query, key = attention.q_proj.product(x), attention.k_proj.product(x)
        if hasattr(attention, "q_norm"):
            query = attention.q_norm(query.view(rows, -1, d_head)).view(rows, -1)
            key = attention.k_norm(key.view(rows, -1, d_head)).view(rows, -1)
        stacked = torch.cat([query, key], -1).view(rows, -1, d_head)
        rotated = torch.addcmul(stacked * cos, stacked.roll(d_head // 2, -1), sin)
        heads = rotated.shape[1] - kv_heads
        written = torch.cat([rotated[:, heads:].flatten(1), attention.v_proj.product(x)], -1)
        states.flatten(0, 1).flatten(1).index_copy_(0, at, written)
        # query heads that share keys and values become queries of one head
        query = rotated[:, :heads].view(rows, kv_heads, -1, d_head)
        parts = [
            F.scaled_dot_product_attention(
                query[mine],
                states[slots, :width, 0].transpose(1, 2),
                states[slots, :width, 1].transpose(1, 2),
                mask,
                scale=self._scaling,
            )
            for mine, slots, width, mask in groups
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(rows, -1)

    def _ffn(self, layer: Any, hidden: Tensor, act: Any, act_down: Any) -> Tensor:
        """(B, D) -> (B, D): the residual stream after the FFN, with edits acting at its output and
        down-projection."""
        mlp = layer.mlp
        x = _normed(layer.post_attention_layernorm, hidden)
        inner = F.silu(mlp.gate_proj.product(x), inplace=True).mul_(mlp.up_proj.product(x))
        out: Tensor = mlp.down_proj.product(inner)
        if act_down is not None:
            out = act_down(inner[:, None], out[:, None])[:, 0]
        if act is not None:
            out = act(x[:, None], out[:, None])[:, 0]
        return hidden + out


def _index_of(slots: Sequence[int]) -> slice | list[int]:
    """A slice if the slots are adjacent, which reads them in place; otherwise a list, which copies."""
    dense = slots[-1] - slots[0] + 1 == len(slots)
    return slice(slots[0], slots[-1] + 1) if dense else list(slots)


def _mask(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(B, 1) positions -> (B, 1, 1, W): 0 where a row may attend, minus infinity elsewhere."""
    mask = torch.zeros(len(positions), width, dtype=dtype)
    return mask.masked_fill_(torch.arange(width) > positions, float("-inf"))[:, None, None]


def _normed(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def row_groups(starts: Sequence[int], most: int) -> list[tuple[slice, int]]:
    """Groups adjacent rows into (rows, width) of common attention width, so that one long row does not widen all
    others."""
    groups: list[tuple[slice, int]] = []
    first, width = 0, 0
    for row, start in enumerate(starts):
        own = min(most, -(-max(1, start + 1) // WIDTH_STEP) * WIDTH_STEP)
        count, wider = row - first, max(width, own)
        if count and (count + 1) * wider - count * width - own > MAX_WASTED_COLUMNS:
            groups.append((slice(first, row), width))
            first, wider = row, own
        width = wider
    return [*groups, (slice(first, len(starts)), width)]
