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
STALE = 0.02
"""Share of a namespace's traffic that may be newer than what contrast is taken of: each request brings a prompt."""
STALE_PROMPTS = 32


@dataclass(frozen=True, slots=True)
class Contrast:
    """How near a question lies to others; `traffic`: whether these are many of its own namespace."""

    cosine: float
    traffic: bool = False


class Background:
    """`shipped` are questions as they are asked anywhere, `traffic` those that are asked in a namespace."""

    def __init__(
        self, vectors: Vectors, shipped: Sequence[str] = (), traffic: Callable[[str], Sequence[str]] = lambda _: ()
    ) -> None:
        self._vectors, self._shipped, self.traffic = vectors, tuple(dict.fromkeys(shipped)), traffic
        self._of_shipped: Tensor | None = None
        self._held: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        self._lock = threading.Lock()

    def of(self, namespace: str) -> tuple[tuple[str, ...], Tensor]:
        """The questions and their vectors (N, E)."""
        with self._lock:
            if self._of_shipped is None:
                self._of_shipped = self._vectors.of(self._shipped)
            traffic = tuple(dict.fromkeys(self.traffic(namespace)))
            if not traffic:
                return self._shipped, self._of_shipped
            held = self._held.get(namespace)
            if held is None or _changed(held[0][len(self._shipped) :], traffic):
                vectors = torch.cat([self._of_shipped, self._vectors.of(traffic)])
                held = self._held[namespace] = ((*self._shipped, *traffic), vectors)
            return held

    def near(self, queries: Tensor, namespace: str) -> Contrast:
        """(W, E) -> how near they lie to what is asked anyway: the mean cosine of the nearest few."""
        texts, vectors = self.of(namespace)
        near = (vectors @ queries.T).amax(1) if len(vectors) else torch.zeros(0)
        near = near[near < SAME]  # what is asked in the same words is no contrast
        mean = float(near.topk(min(NEAREST, len(near))).values.mean()) if len(near) else 0.0
        return Contrast(mean, len(texts) - len(self._shipped) >= MANY)


def _changed(before: Sequence[str], now: Sequence[str]) -> bool:
    """Whether so much is new or gone that it is worth reading again."""
    if not before or len(now) < len(before):
        return True
    return len(set(now).difference(before)) > max(STALE_PROMPTS, STALE * len(before))
