"""The match model: the logit that a question asks for an edit, from features of the question beside the edit's keys.

A logistic model over a few figures, one for each case of what an edit has: paraphrases or none, counter-examples or
none, and whether its namespace keeps what is asked. `scope_training` fits it on pairs that the pair scorer did
not see.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch import Tensor

MATCH_WEIGHTS = Path(__file__).parent / "weights_v1.json"
ENCODER = "encoder"
"""The entry, beside the cases, of the fingerprint of the encoder that the weights were fitted with. The file that ships
has none."""


@dataclass(frozen=True, slots=True)
class MatchFeatures:
    """The features of a question beside one edit. They are logits of the pair scorer and cosines, with the edit's
    prompt, the best and the mean of all keys, and the counter-examples; the `contrast` with the background; the
    `cohesion`, the logits of the keys beside one another; and whether no name of the edit is said. Features of absent
    counter-examples are 0, and so is the cohesion of one key."""

    prompt: float
    best: float
    mean: float
    prompt_cosine: float
    best_cosine: float
    mean_cosine: float
    counter: float
    counter_cosine: float
    counter_mean_cosine: float
    contrast: float
    cohesion: float
    unnamed: float
    paraphrases: int
    counters: int
    traffic: bool

    @classmethod
    def of(
        cls,
        own: Tensor,
        own_cosines: Tensor,
        counter: Tensor,
        counter_cosines: Tensor,
        *,
        contrast: float,
        traffic: bool,
        cohesion: float,
        unnamed: bool,
    ) -> "MatchFeatures":
        """The features from logits and cosines (K,) of the keys, the prompt first, and (C,) of the counter-examples."""
        has = len(counter) > 0
        return cls(
            prompt=float(own[0]),
            best=float(own.max()),
            mean=float(own.mean()),
            prompt_cosine=float(own_cosines[0]),
            best_cosine=float(own_cosines.max()),
            mean_cosine=float(own_cosines.mean()),
            counter=float(counter.max()) if has else 0.0,
            counter_cosine=float(counter_cosines.max()) if has else 0.0,
            counter_mean_cosine=float(counter_cosines.mean()) if has else 0.0,
            contrast=contrast,
            cohesion=cohesion,
            unnamed=float(unnamed),
            paraphrases=len(own) - 1,
            counters=len(counter),
            traffic=traffic,
        )

    @property
    def case(self) -> str:
        text = ("paraphrases" if self.paraphrases else "alone") + (", counter-examples" if self.counters else "")
        return text + (", traffic" if self.traffic else "")

    def values(self) -> list[float]:
        """The model's inputs: the features in the order of NAMES; by how much the nearest key falls short of each of
        FAR; and, with traffic, products, because there a cosine's meaning depends on how near other questions lie."""
        plain = [*(getattr(self, name) for name in NAMES), *(max(0.0, far - self.best_cosine) for far in FAR)]
        return [*plain, *self._products()] if self.traffic else plain

    def _products(self) -> list[float]:
        best, mean = (max(-CLIP, min(CLIP, logit)) for logit in (self.best, self.mean))
        cosine, contrast, cohesion = self.best_cosine, self.contrast, self.cohesion
        return [
            *((cosine - contrast) ** 2, cosine * best, cosine**2, contrast**2, cosine * contrast),
            *(cohesion * mean, cohesion * (cosine - contrast), cohesion * cosine, cohesion * contrast, cohesion**2),
        ]

    @property
    def stands_out(self) -> float:
        """An extra logit for broad edits, as their keys show, if the namespace's traffic is known: by how much the
        question lies nearer to the keys than to other questions. The pair scorer tells answers apart and says little
        about intents."""
        broad = self.traffic and self.paraphrases > 0 and self.cohesion < BROAD
        return STEEP * (self.best_cosine - self.contrast - APART) if broad else -STEEP


NAMES = (
    "prompt", "best", "mean", "prompt_cosine", "best_cosine", "mean_cosine", "counter", "counter_cosine",
    "counter_mean_cosine", "contrast", "cohesion", "unnamed",
)  # fmt: skip


CLIP = 4.0
"""The bound at which logits are clipped in products."""
BROAD = 1.6
"""Cohesion below which an edit's keys are utterances of an intent, not one question in several wordings: of the edits
that weights are fitted on, four fifths of the intents lie below, and a sixth of the single questions."""
APART, STEEP = 0.1, 10.0
"""The margin, in cosine, by which a question must lie nearer to a broad edit's key than to the background; and the
logit per unit of cosine beyond it."""
FAR = (0.45, 0.65)
"""Two cosines below which a key becomes less and less likely to ask the same, whatever the pair scorer says."""


CASES = tuple(map("".join, product(("alone", "paraphrases"), ("", ", counter-examples"), ("", ", traffic"))))
"""The cases of `MatchFeatures.case`."""


class MatchModel:
    """The weights of each case, in the order of `MatchFeatures.values`, then the constant."""

    def __init__(self, weights: Mapping[str, Sequence[float]], encoder: str = "") -> None:
        """`encoder` is the fingerprint of the encoder that they were fitted with, as far as it is known."""
        self._weights, self.encoder = weights, encoder

    def logit(self, figures: MatchFeatures) -> float:
        """The logit, at least that of `stands_out`; above 0, the question asks for the edit more likely than not."""
        *weights, constant = self._weights[figures.case]
        weighed = constant + sum(w * value for w, value in zip(weights, figures.values(), strict=True))
        return max(weighed, figures.stands_out)


def load_match_model(file: Path = MATCH_WEIGHTS) -> MatchModel:
    """Load the model that ships, or that of another file. Raises ValueError for a file without the weights of every
    case."""
    weights = json.loads(file.read_text(encoding="utf-8"))
    if missing := [case for case in CASES if case not in weights]:
        raise ValueError(f"it has no weights for {missing[0]!r}")
    return MatchModel({case: weights[case] for case in CASES}, weights.get(ENCODER, ""))
