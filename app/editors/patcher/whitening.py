"""The whitening transform: after it a cloud of states has the same variance in every direction, so that Euclidean
distances between transformed states are Mahalanobis distances."""

import torch
from torch import Tensor

SHRINKAGE = 0.1
"""The share of the mean variance that is added to every direction, because samples are few beside a model's width."""


def whitening(centred: Tensor) -> Tensor:
    """(N, D) states about their mean -> W (D, D), where W W' is the inverse of their covariance. Rows are multiplied
    by W from the right."""
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(len(covariance), device=centred.device)
    lower = torch.linalg.cholesky(covariance + ridge * eye)
    whiten: Tensor = torch.linalg.solve_triangular(lower, eye, upper=False).T
    return whiten.contiguous()
