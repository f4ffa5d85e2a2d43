"""The linear map under which a cloud of states is as wide in every direction: distances in it are Mahalanobis's."""

import torch
from torch import Tensor

SHRINKAGE = 0.1
"""Share of the mean variance added to every direction: samples are few beside the width of a model."""


def whitening(centred: Tensor) -> Tensor:
    """(N, D) about their mean -> W (D, D), with W W' the inverse of their covariance: rows are multiplied by W."""
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(len(covariance), device=centred.device)
    lower = torch.linalg.cholesky(covariance + ridge * eye)
    whiten: Tensor = torch.linalg.solve_triangular(lower, eye, upper=False).T
    return whiten.contiguous()
