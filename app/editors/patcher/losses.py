"""Transformer-Patcher's losses as published (Huang et al. 2023, arXiv 2301.09785, section 3). Knows no model.

q (m, D_in) are an edit's own queries, neuron j tied to query j; k (m, D_in) and b (m,) its neurons' keys and biases;
memory (N, D_in) the queries to be silent on. Pre-activations are q . k + b.
"""

import torch
from torch import Tensor

BETA, GAMMA = -3.0, 3.0
"""Margins of the memory losses: below -3 on the memory, and 3 below its own query. The official zsRE run drops them."""
TOP_ACTIVATION, TOP_MEMORY = 5, 1000
COPIES = 8
"""The published batch holds the edit 8 times, and so each pre-activation: of 1000 of the largest 125 are distinct, of 5
there is one. Where dropout is off all copies are equal, and each value is computed once."""


def largest(values: Tensor, count: int) -> Tensor:
    """S(z; r): the mean of the r largest of exp(z), where each value stands COPIES times."""
    distinct = -(-count // COPIES)
    return values.flatten().topk(min(distinct, values.numel())).values.exp().mean()


def activation_loss(queries: Tensor, keys: Tensor, biases: Tensor) -> Tensor:
    """L_a = S(-(q_j . k_j + b_j); 5): each neuron is active at its own query."""
    return largest(-((queries * keys).sum(-1) + biases), TOP_ACTIVATION)


def memory_loss(memory: Tensor, queries: Tensor, keys: Tensor, biases: Tensor) -> Tensor:
    """L_m = L_m1 + L_m2: below -3 on the memory, and at least 3 below what the neuron has at its own query."""
    if not len(memory):
        return torch.zeros((), device=keys.device)
    on_memory = memory @ keys.T + biases  # (N, m)
    own = (queries * keys).sum(-1) + biases  # (m,)
    below = largest(on_memory - BETA, TOP_MEMORY)
    apart = largest(on_memory - own + GAMMA, TOP_MEMORY)
    return below + apart


def initial(queries: Tensor) -> tuple[Tensor, Tensor]:
    """k_j = q_j / |q_j|^2 and b_j = 0: each neuron's pre-activation at its own query is 1."""
    return queries / queries.pow(2).sum(-1, keepdim=True).clamp(min=1e-12), queries.new_zeros(len(queries))
