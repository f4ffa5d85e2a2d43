"""Decode steps of Llama-like models on a CPU, with a minimal number of operations.

transformers' modules take about thirty operations and as many module calls per layer; this pass takes fifteen, reads
keys and values of grouped heads in place, and computes attention only as wide as neighbouring rows need. Each run of
layers at which no edit acts is one call of a compiled function. The pass uses the model's own weights, norms and rotary
embeddings, so results differ by rounding only, which is checked at start. It knows no sequences and no editors:
hooks supply what acts at a site.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.editors.fitting.hooks import SiteHooks
from app.engine.kv_cache import SlotCache
from app.engine.lean_layers import compiled
from app.engine.model import HostedModel
from app.engine.onednn import FrozenLinear, JointPart

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
        self._d_head = attention.head_dim
        self._kv_heads = attention.k_proj.out_features // self._d_head
        half = self._d_head // 2
        self._sign = torch.cat([-torch.ones(half), torch.ones(half)])
        linear = [_linear_of(layer) for layer in self._layers]
        self._weights = [[each.laid_out for each in of_layer] for of_layer in linear]
        self._biases = [[each.bias for each in of_layer] for of_layer in linear]
        self._norms = [[norm.weight for norm in _norms_of(layer)] for layer in self._layers]
        self._numbers = self._norm.variance_epsilon, attention.scaling

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
            and all(isinstance(each, JointPart) for each in _joined(model.model.layers))
            and compiled() is not None
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
            (
                rows.start,
                rows.stop,
                width,
                slots[rows.start],
                _scattered(slots[rows]),
                _mask(positions[rows], width, hidden.dtype),
            )
            for rows, width in row_groups(starts, self._cache.max_tokens)
        ]
        step = cos, sin, at, groups
        states = list(self._cache.layers_states(self._kv_heads, self._d_head, hidden.dtype))
        acting, done = self._hooks.acting, 0
        for layer, (site, down_site) in enumerate(self._sites):
            act, act_down = acting.get(site), acting.get(down_site)
            if act is not None or act_down is not None:
                hidden = self._run(hidden, done, layer, step, states)
                hidden = self._acted(layer, hidden, act, act_down, step, states[layer])
                done = layer + 1
        hidden = self._run(hidden, done, len(self._layers), step, states)
        logits: Tensor = self._head.product(_normed(self._norm, hidden))
        return logits.float()

    def _run(self, hidden: Tensor, begin: int, end: int, step: Any, states: list[Tensor]) -> Tensor:
        """The layers [begin, end), in which nothing acts."""
        of_layers = states, self._weights, self._biases, self._norms
        ran: Tensor = compiled().run(hidden, begin, end, *step, *of_layers, *self._numbers)
        return ran

    def _acted(self, layer: int, hidden: Tensor, act: Any, act_down: Any, step: Any, states: Tensor) -> Tensor:
        """One layer, with edits acting at the output of its FFN and of its down-projection."""
        of_layer = self._weights[layer], self._biases[layer], self._norms[layer]
        hidden = compiled().attend(hidden, *step, states, *of_layer, *self._numbers)
        mlp = self._layers[layer].mlp
        x = _normed(self._layers[layer].post_attention_layernorm, hidden)
        inner = F.silu(mlp.gate_proj.product(x), inplace=True).mul_(mlp.up_proj.product(x))
        out: Tensor = mlp.down_proj.product(inner)
        if act_down is not None:
            out = act_down(inner[:, None], out[:, None])[:, 0]
        if act is not None:
            out = act(x[:, None], out[:, None])[:, 0]
        return hidden + out


def _joined(layers: Any) -> list[nn.Module]:
    """One part of each joint product: its siblings are joined if it is."""
    return [each for layer in layers for each in (layer.self_attn.v_proj, layer.mlp.up_proj)]


def _linear_of(layer: Any) -> list[FrozenLinear]:
    attention, mlp = layer.self_attn, layer.mlp
    return [attention.q_proj.joint.whole, attention.o_proj, mlp.gate_proj.joint.whole, mlp.down_proj]


def _norms_of(layer: Any) -> list[Any]:
    of_heads = [layer.self_attn.q_norm, layer.self_attn.k_norm] if hasattr(layer.self_attn, "q_norm") else []
    return [layer.input_layernorm, layer.post_attention_layernorm, *of_heads]


def _scattered(slots: Sequence[int]) -> Tensor | None:
    """None if the slots are adjacent, so that they are read in place; otherwise they are copied."""
    return None if slots[-1] - slots[0] + 1 == len(slots) else torch.tensor(slots)


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
