"""Questions that are asked anyway: those that ship, and those of a namespace's traffic where its operator keeps them.

A question that lies near an edit's key says little where it lies as near to many others: contrast is what is left.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.scope.vectors import Vectors

NEAREST = 5
"""Questions that contrast is the mean of."""
SAME = 0.98
"""Cosine of what is asked in the very same words, but for a mark or a capital."""
MANY = 200
"""Prompts of a namespace from which on they say what is usual there."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How near a question lies to others; `traffic`: whether these are many of its own namespace."""

    cosine: float
    traffic: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What is asked anyway, as it was known when an edition was compiled: what an edition decides does not change with
    each request. texts, and their vectors (N, E)."""

    texts: tuple[str, ...]
    vectors: Tensor
    traffic: bool
    shipped: int = 0
    """So many of them, the first, ship: of a namespace's traffic some may ask for an edit, in words of their own."""

    def near(self, queries: Tensor) -> Contrast:
        """(W, E) -> the mean cosine of the nearest few."""
        near = (self.vectors @ queries.T).amax(1) if len(self.vectors) else torch.zeros(0)
        near = near[near < SAME]  # what is asked in the same words is no contrast
        mean = float(near.topk(min(NEAREST, len(near))).values.mean()) if len(near) else 0.0
        return Contrast(mean, self.traffic)


class Background:
    """`shipped` are questions as they are asked anywhere, `traffic` those that are asked in a namespace."""

    def __init__(
        self, vectors: Vectors, shipped: Sequence[str] = (), traffic: Callable[[str], Sequence[str]] = lambda _: ()
    ) -> None:
        self._vectors, self._shipped, self.traffic = vectors, tuple(dict.fromkeys(shipped)), traffic
        self._of_shipped: Usual | None = None
        self._held: dict[str, tuple[tuple[str, ...], Usual]] = {}
        self._lock = threading.Lock()

    def of(self, namespace: str) -> Usual:
        """What is known now."""
        with self._lock:
            if self._of_shipped is None:
                self._of_shipped = Usual(self._shipped, self._vectors.of(self._shipped), False, len(self._shipped))
            traffic = tuple(dict.fromkeys(self.traffic(namespace)))
            if not traffic:
                return self._of_shipped
            held = self._held.get(namespace)
            if held is None or held[0] != traffic:
                vectors = torch.cat([self._of_shipped.vectors, self._vectors.of(traffic)])
                usual = Usual((*self._shipped, *traffic), vectors, len(traffic) >= MANY, len(self._shipped))
                held = self._held[namespace] = (traffic, usual)
            return held[1]
