"""The distance between keys: whitened by how paraphrases of one question differ, so that wording counts for little.

Calibrated once on a bank of generic prompts in which the same subject is asked about in several ways and for several
things. The default deferral radius is the distance that lets through few other questions about the same subject.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.editors.base import BankPrompt

SHRINKAGE = 0.1
"""Share of the mean variance added to every direction: a bank is small beside the width of a model."""
FALSE_HITS = 0.01
"""Share of the bank's same-subject, other-relation pairs that the default radius may let through."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Keys are compared as `|W (a - b)|_2`; `whiten` (D, D) fp32, or None for plain L2. `radius` is the default one."""

    whiten: Tensor | None
    radius: float

    def __call__(self, keys: Tensor) -> Tensor:
        """(..., D) -> (..., D) in fp32, ready to be compared by L2."""
        return keys.float() if self.whiten is None else keys.float() @ self.whiten


def calibrate(features: Tensor, bank: Sequence[BankPrompt]) -> Metric:
    """(N, D) base activations at the bank's last tokens -> the metric and its radius.

    The covariance is that of paraphrases about their own mean, over one half of the relations; the radius comes from
    the other half, so that it is not flattered by the fit.
    """
    features = features.float()
    order = {relation: i for i, relation in enumerate(sorted({prompt.relation for prompt in bank}))}
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, prompt in enumerate(bank):
        groups[prompt.relation, prompt.subject].append(i)
    even = [rows for (relation, _), rows in groups.items() if order[relation] % 2 == 0]
    whiten = _within_class_whitening(features, even)
    keys = features @ whiten
    own: list[Tensor] = []
    other: list[Tensor] = []
    by_subject: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
    for (relation, subject), rows in groups.items():
        if order[relation] % 2 == 1:
            by_subject[subject].append((relation, rows))
    for asked in by_subject.values():
        for i, (_, rows) in enumerate(asked):
            own.append(torch.pdist(keys[rows]))
            other.extend(torch.cdist(keys[rows], keys[others]).flatten() for _, others in asked[i + 1 :])
    return Metric(whiten, _radius(torch.cat(own), torch.cat(other)))


def _within_class_whitening(features: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    centred = torch.cat([features[list(rows)] - features[list(rows)].mean(0) for rows in groups])
    covariance = centred.T @ centred / len(centred)
    ridge = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    covariance = covariance + ridge * torch.eye(len(covariance), device=features.device)
    # |L^-1 (a - b)| is the Mahalanobis distance; rows are multiplied from the right by L^-T
    lower = torch.linalg.cholesky(covariance)
    eye = torch.eye(len(covariance), device=features.device)
    whiten: Tensor = torch.linalg.solve_triangular(lower, eye, upper=False).T
    return whiten.contiguous()


def _radius(own: Tensor, other: Tensor) -> float:
    """Where at most FALSE_HITS of other questions pass, and no wider than nearly all paraphrases need."""
    strict = other.quantile(FALSE_HITS).item() if len(other) else float("inf")
    return min(strict, own.quantile(0.995).item())
