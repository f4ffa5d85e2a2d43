"""The log odds that a state gives a token against all others, and the gradient of those odds."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_LOGITS = 2**22
"""The number of logits that are held at once, 16 MiB in fp32. The allocator maps every block of more than 32 MiB anew,
which took longer than the matrix product that fills it."""
RIVALS = 64
"""The number of most probable other tokens in the gradient. Together they hold nearly all of the probability that a
token lacks."""


class TokenOdds(NamedTuple):
    """The odds of one token for each of N states."""

    odds: Tensor
    """(N,) fp32: the logarithm of the token's probability over that of all other tokens together."""
    greedy: Tensor
    """(N,) bool: whether the token is the greedy choice."""
    slope: Tensor
    """(N, D) fp32: the gradient of the odds with respect to the state, computed from the rivals."""


@torch.no_grad()
def token_odds(head: Any, states: Tensor, target: Tensor, device: torch.device) -> TokenOdds:
    """Return the odds of `target` (N,) token ids given `states` (N, D), the inputs of the output embeddings `head`."""
    # A head that stores its weight in another layout can return the plain one, and keeps it between a fit's steps.
    weight: Tensor = head.dense() if hasattr(head, "dense") else head.weight
    states_at_once = max(1, MAX_LOGITS // len(weight))
    results: list[TokenOdds] = []
    for first in range(0, len(states), states_at_once):
        rows = slice(first, first + states_at_once)
        logits = head(states[rows].to(weight.device)).to(device).float()
        results.append(_odds_of(logits, target[rows], weight))
    return TokenOdds(*(torch.cat(each) for each in zip(*results, strict=True)))


def _odds_of(logits: Tensor, target: Tensor, weight: Tensor) -> TokenOdds:
    own = logits.gather(1, target[:, None])[:, 0]
    greedy = logits.argmax(-1) == target
    logits.scatter_(1, target[:, None], -torch.inf)
    rivals = logits.topk(min(RIVALS, logits.shape[1] - 1))
    share = rivals.values.softmax(-1)
    rival_rows = weight[rivals.indices.to(weight.device)].to(share.device).float()  # (N, RIVALS, D)
    own_rows = weight[target.to(weight.device)].to(share.device).float()
    slope = own_rows - torch.einsum("nk,nkd->nd", share, rival_rows)
    return TokenOdds(own - logits.logsumexp(-1), greedy, slope)
