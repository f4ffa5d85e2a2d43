"""Tells whether two programs serve the same model, by the first numbers of a weight that both hold unchanged."""

import hashlib

import torch
from torch import Tensor

ROWS = 64
"""The rows that are compared. Tensor-parallel rank 0 holds them, and quantised models keep embeddings as they are."""


def weight_digest(weight: Tensor) -> str:
    """Return a digest of the type of a weight (N, D) and of its first rows."""
    rows = weight.detach()[:ROWS].to(device="cpu", dtype=torch.float32).contiguous()
    return hashlib.sha256(f"{weight.dtype}/{tuple(rows.shape)}/".encode() + bytes(rows.numpy().data)).hexdigest()[:32]
