"""Stand-ins for the encoder, the pair scorer and the match model, so that a test states every figure itself.

A text's vector is at the angle that the test gives it, or at a right angle to all given ones. The scorer's logit is the
one that the test gives the pair, or follows the cosine of two given angles; else it is -STEEP. The match model's logit
is the best logit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.scope.background import Background, NearbyBackground
from app.scope.closed_words import load_closed_words
from app.scope.decision import Assessment, ScopeDecider
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import EncodedText, Encoder, Pieces
from app.scope.index import ScopeIndex
from app.scope.match_model import MatchFeatures, MatchModel
from app.scope.record import ScopeRecord
from app.scope.scope_learner import ALONE
from app.scope.scorer import PairScorer
from app.scope.vectors import Vectors

KEY, ASKED = "who runs the lamp shop", "whose is the lamp shop"
STEEP = 10.0
"""The logit that a pair of the same vector has, and, negated, one at a right angle."""


def turned(*degrees: float) -> Tensor:
    """Unit vectors (N, 3) at these angles, in a plane."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin(), torch.zeros(len(degrees))], -1)


class AngleEncoder(Encoder):
    """An encoder of texts whose angles, in degrees, are given."""

    width, fingerprint = 3, "angles"

    def __init__(self, angles: Mapping[str, float]) -> None:
        self.angles, self.encoded = dict(angles), list[str]()

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        none = torch.zeros(0, self.width)
        return [
            EncodedText(text, vector, torch.zeros(2, self.width), none, (), ())
            for text, vector in zip(texts, self.vectors(texts), strict=True)
        ]

    def pieces(self, texts: Sequence[str]) -> list[Pieces]:
        return [Pieces((), ())] * len(texts)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        self.encoded.extend(texts)
        found = torch.zeros(len(texts), self.width)
        for row, text in enumerate(texts):
            found[row] = turned(self.angles[text])[0] if text in self.angles else torch.tensor([0.0, 0.0, 1.0])
        return found


class GivenScorer(PairScorer):
    """A scorer of pairs (question, key) whose logits are given."""

    def __init__(self, logits: Mapping[tuple[str, str], float]) -> None:
        self.logits = dict(logits)

    def table(self, asked: Sequence[EncodedText], keys: Sequence[EncodedText]) -> Tensor:
        logits = [[self._logit(one, key) for key in keys] for one in asked]
        return torch.tensor(logits, dtype=torch.float32).view(len(asked), len(keys))

    def _logit(self, one: EncodedText, key: EncodedText) -> float:
        given = self.logits.get((one.text, key.text))
        return STEEP * (2 * float(one.vector[:2] @ key.vector[:2]) - 1) if given is None else given


class BestLogit(MatchModel):
    """A match model that thinks as its best key does, and notes the features that it is shown."""

    def __init__(self) -> None:
        self.seen: list[MatchFeatures] = []

    def logit(self, figures: MatchFeatures) -> float:
        self.seen.append(figures)
        return figures.best


class StandIns:
    """A decider, and all that is built on it, over given angles and logits."""

    def __init__(
        self,
        angles: Mapping[str, float],
        logits: Mapping[tuple[str, str], float] | None = None,
        shipped: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        self.encoder, self.scorer, self.match_model = AngleEncoder(angles), GivenScorer(logits or {}), BestLogit()
        self.closed, self.vectors = load_closed_words(), Vectors(self.encoder)
        self.keys = EncodedKeys(self.encoder, folder)
        self.decider = ScopeDecider(self.encoder, self.keys, self.scorer, self.match_model, self.closed)
        self.background = Background(self.vectors, shipped)

    def index(self, others: Sequence[str] = (), false_hits: float = 0.002) -> ScopeIndex:
        return ScopeIndex(
            self.encoder, self.decider, self.closed, self.vectors, self.background, others, lambda _: false_hits
        )


def record(*keys: str, **more: Any) -> ScopeRecord:
    return ScopeRecord(keys=list(keys), bound=0.5, **more)


def weighed(
    made: StandIns, question: str, scope: ScopeRecord, *, named: bool = True, background: NearbyBackground = ALONE
) -> Assessment:
    decider = made.decider
    return decider.weigh(decider.question((question,)), decider.row("a", scope), background, named=named)
