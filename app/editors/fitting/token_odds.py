"""How clearly a state gives a token: its log odds against all others, and which way they grow fastest."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**22
"""Logits that are held at once, 16 MiB of them. The allocator maps every block of more than 32 MiB anew, which took
longer than the product that fills it."""
RIVALS = 64
"""The likeliest other tokens. They hold nearly all of the probability that a token lacks."""


class Telling(NamedTuple):
    """Of N states, each with its token."""

    odds: Tensor
    """(N,) fp32: the logarithm of the token's probability over that of all others together."""
    first: Tensor
    """(N,) bool: whether the token is the greedy choice."""
    slope: Tensor
    """(N, D) fp32: the gradient of the odds with respect to the state, computed from the rivals."""


@torch.no_grad()
def telling(head: Any, states: Tensor, target: Tensor, device: torch.device) -> Telling:
    """`head` are the output embeddings; states (N, D) are what they read, `target` (N,) the tokens."""
    # a layer that holds its weight in another layout keeps the plain one between the steps of a fit, if asked for it so
    weight: Tensor = head.dense() if hasattr(head, "dense") else head.weight
    at_once = max(1, LOGITS_AT_ONCE // len(weight))
    parts: list[Telling] = []
    for first in range(0, len(states), at_once):
        some = slice(first, first + at_once)
        logits = head(states[some].to(weight.device)).to(device).float()
        parts.append(_told(logits, target[some], weight))
    return Telling(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _told(logits: Tensor, target: Tensor, weight: Tensor) -> Telling:
    own = logits.gather(1, target[:, None])[:, 0]
    first = logits.argmax(-1) == target
    logits.scatter_(1, target[:, None], -torch.inf)
    likeliest = logits.topk(min(RIVALS, logits.shape[1] - 1))
    share = likeliest.values.softmax(-1)
    rows = weight[likeliest.indices.to(weight.device)].to(share.device).float()  # (N, RIVALS, D)
    mine = weight[target.to(weight.device)].to(share.device).float()
    return Telling(own - logits.logsumexp(-1), first, mine - torch.einsum("nk,nkd->nd", share, rows))
