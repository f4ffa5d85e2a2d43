"""The decision on one edit: the question is compared with the edit's keys, scored, and possibly vetoed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from app.domain.generation import Signal
from app.domain.words import Span, plain_words, words_of
from app.scope.background import NearbyBackground
from app.scope.closed_words import ClosedWords
from app.scope.encoder import EncodedText, Encoder
from app.scope.match_model import MatchFeatures, MatchModel
from app.scope.parsed_question import ParsedQuestion, called_by_name, exchanged, names_in, read
from app.scope.record import ScopeRecord
from app.scope.scorer import PairScorer

NEARER = 1.0
"""The logit by which a generated near miss must lie nearer than the edit's own keys, since no person wrote it."""
SURE = 6.0
"""The logit of a question that equals a key, apart from capitals and closing punctuation."""
MOST_KEYS, MOST_COUNTERS = 8, 6
"""The most keys (the prompt and the nearest others) and counter-examples of an edit with which a question is
compared."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedQuestion:
    """A prompt's question, encoded: one `EncodedText` for each of its readings, and its folded words."""

    asked: ParsedQuestion
    readings: tuple[EncodedText, ...]
    words: Sequence[str]

    @property
    def queries(self) -> Tensor:
        """The vectors (W, E) of the question's readings."""
        return torch.stack([each.vector for each in self.readings])


@dataclass(frozen=True, eq=False)
class ScopedEdit:
    """An edit in memory: its record, the texts of its keys in the order of the matrix, its counter-examples."""

    edit_id: str
    record: ScopeRecord
    free: frozenset[int] = frozenset()
    """The exclusive lines of closed-class words on which the edit's own keys differ; see `ClosedWords.free`."""

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.record.keys, *self.record.made)))

    @property
    def bound(self) -> float:
        """The edit's bound, as a logit."""
        return logit(self.record.bound) - math.log(self.record.widened)


@dataclass(frozen=True, slots=True)
class Assessment:
    """The comparison of a question with an edit: its `score`, a logit, its nearest `key`, and the reason `against` a
    match, if any."""

    score: float
    key: str
    figures: MatchFeatures
    against: str | None

    def margin(self, bound: float) -> float:
        return self.score - bound if self.against is None else min(self.score - bound, 0.0) - 1.0

    def signals(self, bound: float, *, given: bool) -> dict[str, Signal]:
        return {
            "same": Signal(round(share(self.score), 4), round(share(bound), 4)),
            "cosine": Signal(round(self.figures.best_cosine, 4), round(self.figures.contrast, 4)),
            "named": Signal(1.0 - self.figures.unnamed, float(given)),
        }

    def why(self, bound: float) -> str:
        """The reason for the decision, in words."""
        text = f"nearest to {self.key!r}: the same with {share(self.score):.2f}, bound {share(bound):.2f}"
        return text if self.against is None else f"{text}; but {self.against}"


class ScopeDecider:
    """Decides on one edit at a time. Which edits are worth a closer look is decided elsewhere."""

    def __init__(self, encoder: Encoder, scorer: PairScorer, match_model: MatchModel, closed: ClosedWords) -> None:
        self._encoder, self._scorer, self._match_model, self._closed = encoder, scorer, match_model, closed
        self._cohesion = lru_cache(maxsize=4096)(self._compared)

    def question(self, turns: Sequence[str]) -> EncodedQuestion:
        """The question of a conversation's last turn, or of a bare prompt."""
        asked = read(turns, self._closed)
        return EncodedQuestion(asked, tuple(self._encoder.encode(asked.texts)), asked.words)

    def row(self, edit_id: str, record: ScopeRecord) -> ScopedEdit:
        """The edit in the form in which decisions use it."""
        return ScopedEdit(edit_id, record, self._closed.free([plain_words(key) for key in record.keys[:MOST_KEYS]]))

    def scores(self, question: EncodedQuestion, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The pair scorer's logit and the cosine (N,) of each text, with the reading nearest to it."""
        keys = self._encoder.encode(texts)
        cosines = torch.stack([each.vector for each in keys]) @ question.queries.T  # (N, W)
        best = cosines.argmax(1).tolist()
        logits = torch.zeros(len(keys))
        for at, reading in enumerate(question.readings):
            if mine := [n for n, nearest in enumerate(best) if nearest == at]:
                logits[mine] = self._scorer.score(reading, [keys[n] for n in mine])
        return logits, cosines.amax(1)

    def weigh(self, question: EncodedQuestion, row: ScopedEdit, beside: NearbyBackground, *, named: bool) -> Assessment:
        """Compare a question with an edit. `named` is true if the question says one of the edit's names."""
        record = row.record
        keys = [row.texts[0], *self._nearest(question, row.texts[1:], MOST_KEYS - 1)]
        counter = self._nearest(question, record.counter, MOST_COUNTERS)
        logits, cosines = self.scores(question, [*keys, *counter])
        count = len(keys)
        figures = MatchFeatures.of(
            logits[:count],
            cosines[:count],
            logits[count:],
            cosines[count:],
            contrast=beside.contrast(torch.stack([each.vector for each in self._encoder.encode(keys)])),
            traffic=beside.traffic,
            cohesion=self._cohesion(row.texts[:MOST_KEYS]),
            unnamed=not named,
        )
        key = keys[int(logits[:count].argmax())]
        against = self._against(question, row, key, float(logits[:count].max()), named=named)
        score = self._match_model.logit(figures)
        asked = {bare(text) for text in question.asked.texts}
        if (same := next((text for text in keys if bare(text) in asked), None)) is not None:
            score, key = max(score, SURE), same
        if (same := next((text for text in counter if bare(text) in asked), None)) is not None:
            against = f"it is {same!r}, which the edit leaves alone"
        return Assessment(score, key, figures, against)

    def _against(self, question: EncodedQuestion, row: ScopedEdit, key: str, best: float, *, named: bool) -> str | None:
        record = row.record
        if record.given and not named:
            return f"it says none of the names {', '.join(' '.join(name) for name in record.names)}"
        if not named and (other := self._another(question, key)):
            return f"it names {' '.join(other)}, and nobody that the edit names"
        if veto := self._closed.veto(plain_words(self._reading(question, key)), plain_words(key), row.free):
            return veto
        said = words_of(self._reading(question, key))
        if exchanged(said, words_of(key), names_in(key, self._closed), self._closed):
            return "it says two names in each other's place"
        if record.misses:
            near = self._nearest(question, record.misses, MOST_COUNTERS)
            logits, _ = self.scores(question, near)
            if float(logits.max()) >= best + NEARER:
                return f"it is nearer to {near[int(logits.argmax())]!r}, which asks something else"
        return None

    def _compared(self, texts: tuple[str, ...]) -> float:
        """The mean of the best logits of an edit's keys, each asked as a question beside the others; 0 for a single
        key. The more the keys differ, the more may questions that ask for the edit."""
        if len(texts) < 2:
            return 0.0
        keys = self._encoder.encode(texts)
        return float(self._scorer.table(keys, keys).clone().fill_diagonal_(-torch.inf).amax(1).mean())

    def _another(self, question: EncodedQuestion, key: str) -> Span | None:
        """A name in the question that is not in the key; None if there is none."""
        said = plain_words(key)
        others = called_by_name(self._reading(question, key), self._closed)
        return next((span for span in others if not any(word in said for word in span)), None)

    def _reading(self, question: EncodedQuestion, key: str) -> str:
        """The reading nearest to a key."""
        (encoded,) = self._encoder.encode([key])
        return question.asked.texts[int((question.queries @ encoded.vector).argmax())]

    def _nearest(self, question: EncodedQuestion, texts: Sequence[str], most: int) -> list[str]:
        if len(texts) <= most:
            return list(texts)
        vectors = torch.stack([each.vector for each in self._encoder.encode(texts)])
        near = (vectors @ question.queries.T).amax(1).topk(most).indices
        return [texts[at] for at in sorted(near.tolist())]


def bare(text: str) -> str:
    """The text for comparison word for word: casefolded, without surplus white space or closing punctuation."""
    return " ".join(text.casefold().split()).rstrip(" .?!。？！")


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def share(score: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))
