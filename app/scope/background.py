"""Background questions, in contrast to which scopes are learned: bundled ones, and a namespace's traffic if it is kept.

A small distance to an edit's key means little if the distance to many other questions is as small; the contrast does.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.scope import Traffic
from app.scope.vectors import Vectors

NEAREST = 5
"""The number of questions whose mean cosine is the contrast."""
LOOKED_AT = 64
"""The number of nearest questions from which these are taken."""
SAME = 0.98
"""The cosine from which on two texts count as the same words, apart from punctuation and capitals."""
MOST_HELD = 100
"""The most namespaces whose traffic is held."""
MANY = 200
"""The number of prompts from which on a namespace's traffic shows what people usually ask there."""


@dataclass(frozen=True, slots=True, eq=False)
class NearbyBackground:
    """The background nearest to one question: its cosines (N,) with the question, and its vectors (N, E). `traffic` is
    true if the question's own namespace keeps many prompts."""

    cosines: Tensor
    vectors: Tensor
    traffic: bool = False

    def contrast(self, keys: Tensor) -> float:
        """The mean cosine of the nearest few, beside an edit's keys (K, E). A text that lies nearer to the keys than to
        the question may ask for the edit itself and is left out."""
        if not len(self.cosines):
            return 0.0
        strange = self.cosines[self.cosines > (self.vectors @ keys.T).amax(1)]
        if len(strange) < NEAREST:  # hardly anything is nearer to the question: that is no word for the edit
            strange = self.cosines
        return float(strange.topk(min(NEAREST, len(strange))).values.mean())


@dataclass(frozen=True, slots=True, eq=False)
class CompiledBackground:
    """The background as of the time at which an edition was compiled, so that an edition's decisions do not change with
    each request: texts and their vectors (N, E)."""

    texts: tuple[str, ...]
    vectors: Tensor
    traffic: bool
    others: int = 0
    """The number of leading texts that no edit is to answer: those that ship and those that an operator names. The
    others were merely asked, and some of them may ask for an edit in words of their own."""

    def near(self, queries: Tensor) -> NearbyBackground:
        """The background nearest to a question with these readings (W, E)."""
        near = (self.vectors @ queries.T).amax(1) if len(self.vectors) else torch.zeros(0)
        near = near.masked_fill(near >= SAME, -1.0)  # what is asked in the same words is no contrast
        nearest = near.topk(min(LOOKED_AT, int((near > -1).sum())))
        return NearbyBackground(nearest.values, self.vectors[nearest.indices], self.traffic)


class Background:
    """`shipped` are questions that are asked anywhere; `traffic` returns those that are asked in a namespace."""

    def __init__(
        self, vectors: Vectors, shipped: Sequence[str] = (), traffic: Callable[[str], Traffic] = lambda _: Traffic()
    ) -> None:
        self._vectors, self._shipped, self.traffic = vectors, tuple(dict.fromkeys(shipped)), traffic
        self._of_shipped: CompiledBackground | None = None
        self._held: OrderedDict[str, tuple[Traffic, CompiledBackground]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, namespace: str) -> CompiledBackground:
        """Compile the background of a namespace as it is known now."""
        with self._lock:
            if self._of_shipped is None:
                self._of_shipped = CompiledBackground(
                    self._shipped, self._vectors.of(self._shipped), False, len(self._shipped)
                )
            recent = self.traffic(namespace)
            traffic = tuple(dict.fromkeys((*recent.others, *recent.recent)))
            if not traffic:
                self._held.pop(namespace, None)
                return self._of_shipped
            held = self._held.get(namespace)
            if held is None or held[0] != recent:
                vectors = torch.cat([self._of_shipped.vectors, self._of_traffic(traffic, held)])
                others = len(self._shipped) + len(set(recent.others))
                compiled = CompiledBackground((*self._shipped, *traffic), vectors, len(traffic) >= MANY, others)
                held = self._held[namespace] = (recent, compiled)
            self._held.move_to_end(namespace)
            if len(self._held) > MOST_HELD:
                self._held.popitem(last=False)
            return held[1]

    def _of_traffic(self, texts: Sequence[str], held: tuple[Traffic, CompiledBackground] | None) -> Tensor:
        """The vectors (N, E) of these texts. Those of prompts are held in memory only."""
        known = {} if held is None else {text: held[1].vectors[at] for at, text in enumerate(held[1].texts)}
        new = [text for text in texts if text not in known]
        known.update(zip(new, self._vectors.uncached(new), strict=True))
        return torch.stack([known[text] for text in texts])
