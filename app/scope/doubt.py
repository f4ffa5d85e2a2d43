"""Doubts: questions for which the index is uncertain whether they ask for an edit, and the judge that decides them.

A judge decides nothing else: it costs a forward pass, which is worthwhile only where the index is hardly better
than a coin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from app.scope.decision import EncodedQuestion
from app.scope.record import ScopeRecord

BAND = 1.0
"""Half the width of the uncertain band: a decision is uncertain where its margin, a logit, lies nearer to 0.

There the odds that the question asks the same are within a factor of e of the odds that the edit's bound asks for. On
the minimal pairs that choices are settled on (each edit alone, 588 questions), 16 % of the decisions lie in this band;
70 % of these are right, against 89 % of the others, and they are a third of all that are wrong. A band of twice the
width has 37 % of the questions, and a judge would be asked for many that are decided well. A band of more than 1 would
also hold what has a veto (`Assessment.margin`): nobody may talk the index out of one.
"""
MOST_EXAMPLES = 3
"""The most keys (the prompt among them), and the most counter-examples, that a judge is shown."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A question and the edit that it may ask for: its keys, the prompt first, and its counter-examples."""

    question: str
    keys: tuple[str, ...]
    counter: tuple[str, ...] = ()


class Judge(Protocol):
    """A judge tells questions that ask the same as an edit from others. It need not be reliable: an exam decides
    whether it serves."""

    @property
    def name(self) -> str:
        """The judge's name, as the server reports it."""

    def fingerprint(self) -> str:
        """The fingerprint of everything that opinions depend on: weights, precision and prompt. It may take seconds,
        and belongs on another thread."""

    async def logit(self, doubt: Doubt) -> float:
        """The certainty that the question asks the same, on a scale of the judge's own; higher is more certain. Raises
        whatever goes wrong."""


def is_uncertain(margin: float) -> bool:
    return abs(margin) < BAND


def doubt_of(question: EncodedQuestion, record: ScopeRecord, vectors: Callable[[Sequence[str]], Tensor]) -> Doubt:
    """The doubt to show a judge: the reading of the question nearest to the edit's keys, and the given keys and
    counter-examples nearest to the question. `vectors` returns the vectors (N, E) of texts."""
    similarity = question.queries @ vectors(record.keys).T  # (W, K)
    reading = int(similarity.amax(1).argmax())

    def nearest(texts: Sequence[str], most: int) -> tuple[str, ...]:
        if not texts:
            return ()
        near = (vectors(texts) @ question.queries[reading]).topk(min(most, len(texts))).indices
        return tuple(texts[at] for at in sorted(near.tolist()))

    keys = (record.keys[0], *nearest(record.keys[1:], MOST_EXAMPLES - 1))
    return Doubt(question.parsed.texts[reading], keys, nearest(record.counter, MOST_EXAMPLES))
