"""Tells whether two programs serve the same model, by the first numbers of a weight that both hold unchanged."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

ROWS = 64
"""The rows that are compared. Tensor-parallel rank 0 holds them, and quantised models keep embeddings as they are."""


def weight_of(weights: Mapping[str, Tensor], path: str) -> Tensor | None:
    """Return the weight at a path; None if it is not among these. Where LoRAs are enabled, vLLM puts a module that they
    may change into another one, as its `base_layer`."""
    module, _, name = path.rpartition(".")
    return weights.get(path, weights.get(f"{module}.base_layer.{name}"))


def weight_digest(weight: Tensor) -> str:
    """Return a digest of the type of a weight (N, D) and of its first rows."""
    rows = weight.detach()[:ROWS].to(device="cpu", dtype=torch.float32).contiguous()
    return hashlib.sha256(f"{weight.dtype}/{tuple(rows.shape)}/".encode() + bytes(rows.numpy().data)).hexdigest()[:32]
