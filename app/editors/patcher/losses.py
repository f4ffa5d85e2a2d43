"""Transformer-Patcher's losses as published (Huang et al. 2023, arXiv 2301.09785, section 3). Knows no model.

The queries q (m, D_in) belong to one edit, and neuron j is tied to query j. The neurons have keys k (m, D_in) and
biases b (m,). The memory (N, D_in) holds the queries to be silent on. Pre-activations are q . k + b.
"""

import torch
from torch import Tensor

BETA, GAMMA = -3.0, 3.0
"""The margins of the memory losses: pre-activations lie below BETA on the memory, and GAMMA below the one at the own
query. The official zsRE run drops them."""
TOP_ACTIVATION, TOP_MEMORY = 5, 1000
"""The number of largest values that the activation loss and the memory losses average."""
COPIES = 8
"""The published batch holds the edit 8 times. Without dropout the copies are equal, so that each value is computed
once: 125 of the 1000 largest values are distinct, and one of the 5 largest."""


def largest(values: Tensor, count: int) -> Tensor:
    """S(z; r): the mean of the r = `count` largest values of exp(z), where z holds each value COPIES times."""
    distinct = -(-count // COPIES)
    return values.flatten().topk(min(distinct, values.numel())).values.exp().mean()


def activation_loss(queries: Tensor, keys: Tensor, biases: Tensor) -> Tensor:
    """L_a = S(-(q_j . k_j + b_j); 5), a scalar: each neuron is active at its own query."""
    return largest(-((queries * keys).sum(-1) + biases), TOP_ACTIVATION)


def memory_loss(memory: Tensor, queries: Tensor, keys: Tensor, biases: Tensor) -> Tensor:
    """L_m = L_m1 + L_m2, a scalar: pre-activations on the memory lie below BETA, and GAMMA below that at the own
    query."""
    if not len(memory):
        return torch.zeros((), device=keys.device)
    on_memory = memory @ keys.T + biases  # (N, m)
    own = (queries * keys).sum(-1) + biases  # (m,)
    below = largest(on_memory - BETA, TOP_MEMORY)
    apart = largest(on_memory - own + GAMMA, TOP_MEMORY)
    return below + apart


def initial(queries: Tensor) -> tuple[Tensor, Tensor]:
    """k_j = q_j / |q_j|^2 and b_j = 0, so that each neuron's pre-activation at its own query is 1."""
    return queries / queries.pow(2).sum(-1, keepdim=True).clamp(min=1e-12), queries.new_zeros(len(queries))
