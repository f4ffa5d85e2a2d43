"""The decision on one edit: the question is compared with the edit's keys, scored, and possibly vetoed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations

import torch
from torch import Tensor

from app.domain.generation import Signal
from app.domain.words import Span, plain_words, surface, words_of
from app.scope.background import NearbyBackground
from app.scope.closed_words import NUMBERS, ClosedWords, parted_numbers
from app.scope.encoded_keys import EncodedKeys
from app.scope.encoder import EncodedText, Encoder
from app.scope.match_model import MatchFeatures, MatchModel
from app.scope.misses import of_year, year_in
from app.scope.parsed_question import ParsedQuestion, asking_sentence, called_by_name, names_in, read
from app.scope.record import ScopeRecord
from app.scope.scorer import PairScorer
from app.scope.word_order import Swap, swapped

NEARER = 1.0
"""The lead, in logits over the edit's own keys, at which a generated near miss vetoes: no person has checked it."""
VETO = 1.0
"""The logits that a veto takes from a margin, which is then below the uncertain band (`doubt.BAND`)."""
SURE = 6.0
"""The logit of a question that equals a key, apart from capitals and closing punctuation."""
MOST_KEYS, MOST_COUNTERS = 8, 6
"""The most keys (the prompt and the nearest others) and counter-examples of an edit with which a question is
compared."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedQuestion:
    """A prompt's question, encoded: one `EncodedText` for each of its readings, and its folded words. `scored` keeps
    the logit and the cosine of each text that it was compared with."""

    parsed: ParsedQuestion
    readings: tuple[EncodedText, ...]
    words: Sequence[str]
    scored: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def queries(self) -> Tensor:
        """The vectors (W, E) of the question's readings."""
        return torch.stack([each.vector for each in self.readings])


@dataclass(frozen=True, eq=False)
class ScopedEdit:
    """An edit in memory: its record, and the texts of its keys in the order of the matrix."""

    edit_id: str
    record: ScopeRecord
    free: frozenset[int] = frozenset()
    """The exclusive lines of closed-class words on which the edit's own keys differ; see `ClosedWords.free`."""

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.record.keys, *self.record.made)))

    @property
    def bound(self) -> float:
        """The logit that a question must reach to be in scope, after widening."""
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
        return self.score - bound if self.against is None else min(self.score - bound, 0.0) - VETO

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

    def __init__(
        self, encoder: Encoder, keys: EncodedKeys, scorer: PairScorer, match_model: MatchModel, closed: ClosedWords
    ) -> None:
        self._encoder, self._keys, self._scorer = encoder, keys, scorer
        self._match_model, self._closed = match_model, closed
        self._cohesion = lru_cache(maxsize=4096)(self._compared)

    def question(self, turns: Sequence[str]) -> EncodedQuestion:
        """The question of a conversation's last turn, or of a bare prompt."""
        return self.encoded(read(turns, self._closed))

    def encoded(self, parsed: ParsedQuestion) -> EncodedQuestion:
        """A parsed question, encoded."""
        return EncodedQuestion(parsed, tuple(self._encoder.encode(parsed.texts)), parsed.words)

    def row(self, edit_id: str, record: ScopeRecord) -> ScopedEdit:
        """The edit in the form in which decisions use it."""
        return ScopedEdit(edit_id, record, self._closed.free([plain_words(key) for key in record.keys[:MOST_KEYS]]))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """The vectors (N, E) fp32 of one or more texts of edits."""
        return torch.stack([each.vector for each in self._keys.encode(texts)])

    def scores(
        self, question: EncodedQuestion, texts: Sequence[str], encoder: EncodedKeys | Encoder | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pair scorer's logit and the cosine (N,) of each text, with the reading nearest to it. Texts of edits are
        encoded, and kept, by the default encoder."""
        if new := [text for text in dict.fromkeys(texts) if text not in question.scored]:
            keys = (encoder or self._keys).encode(new)
            cosines, best = (torch.stack([each.vector for each in keys]) @ question.queries.T).max(1)  # of readings
            logits = torch.zeros(len(keys))
            for at, reading in enumerate(question.readings):
                if len(mine := (best == at).nonzero()[:, 0]):
                    logits[mine] = self._scorer.score(reading, [keys[n] for n in mine.tolist()])
            question.scored.update(zip(new, zip(logits.tolist(), cosines.tolist(), strict=True), strict=True))
        figures = torch.tensor([question.scored[text] for text in texts]).view(-1, 2)
        return figures[:, 0], figures[:, 1]

    def score_ahead(self, question: EncodedQuestion, rows: Iterable[ScopedEdit]) -> None:
        """Score together all texts of edits that are then weighed: each pass of the scorer has a price of its own."""
        self.scores(question, [text for row in rows for some in self._texts(question, row) for text in some])

    def _texts(self, question: EncodedQuestion, row: ScopedEdit) -> tuple[list[str], list[str]]:
        """The edit's keys, its prompt first, and its counter-examples with which a question is compared."""
        keys = [row.texts[0], *self._nearest(question, row.texts[1:], MOST_KEYS - 1)]
        return keys, self._nearest(question, row.record.counter, MOST_COUNTERS)

    def weigh(
        self, question: EncodedQuestion, row: ScopedEdit, background: NearbyBackground, *, named: bool
    ) -> Assessment:
        """Compare a question with an edit. `named` is true if the question says one of the edit's names."""
        keys, counter = self._texts(question, row)
        logits, cosines = self.scores(question, [*keys, *counter])
        count = len(keys)
        figures = MatchFeatures.of(
            logits[:count],
            cosines[:count],
            logits[count:],
            cosines[count:],
            contrast=background.contrast(self.vectors(keys)),
            traffic=background.traffic,
            cohesion=self._cohesion(row.texts[:MOST_KEYS]),
            unnamed=not named,
        )
        bare_texts = {bare(text) for text in question.parsed.texts}
        same = next((text for text in keys if bare(text) in bare_texts), None)
        key = keys[int(logits[:count].argmax())] if same is None else same
        against, score = self._against(question, row, key, named=named), self._match_model.logit(figures)
        if same is not None:
            score = max(score, SURE)
        if against is None and score > row.bound - VETO:  # otherwise it answers nothing in any case
            against = self._nearer_miss(question, row, float(logits[:count].max()))
        if (same := next((text for text in counter if bare(text) in bare_texts), None)) is not None:
            against = f"it is {same!r}, which the edit leaves alone"
        return Assessment(score, key, figures, against)

    def _against(self, question: EncodedQuestion, row: ScopedEdit, key: str, *, named: bool) -> str | None:
        record = row.record
        if unread := self._unread(question, key):
            return f"the encoder cannot read {unread!r}, which must be said word for word"
        if record.given and not named:
            return f"it says none of the names {', '.join(as_written(row.texts, tuple(name)) for name in record.names)}"
        if not named and (other := self._another(question, key)):
            return f"it names {other}, and none of the edit's own names"
        text = self._reading(question, key)
        if veto := self._closed.veto(plain_words(text), plain_words(key), row.free):
            return veto
        if NUMBERS not in row.free and (veto := parted_numbers(text, key)):
            return veto
        if (swap := self._swapped(text, key)) and not self._may_swap(row, swap):
            return f"it swaps {' and '.join(repr(as_written((key,), span)) for span in swap)}"
        return None

    def _unread(self, question: EncodedQuestion, key: str) -> str | None:
        """The words of the question or else of the key that the encoder cannot read, if the two do not say the same.
        Readings in such words may have equal vectors, so that one that is the key counts before the nearest."""
        theirs = self._keys.encode([key])[0].unread
        if not theirs and not any(each.unread for each in question.readings):
            return None
        texts = question.parsed.texts
        if any(bare(text) == bare(key) for text in texts):
            return None
        mine = question.readings[texts.index(self._reading(question, key))].unread
        return None if mine == theirs else " ".join(mine or theirs)

    def _swapped(self, text: str, key: str) -> Swap | None:
        return swapped(words_of(text), words_of(key), names_in(key, self._closed), self._closed)

    def _may_swap(self, row: ScopedEdit, swap: Swap) -> bool:
        """True if the edit's own keys swap the same two phrases, as those of "mix A with B" may."""
        keys = row.record.keys[:MOST_KEYS]
        own = (self._swapped(one, other) for one, other in combinations(keys, 2))
        return any(each is not None and {*each} == {*swap} for each in own)

    def _nearer_miss(self, question: EncodedQuestion, row: ScopedEdit, best: float) -> str | None:
        """The reason against a match if a near miss leads the best of the edit's keys."""
        near = self._nearest(question, row.record.misses, MOST_COUNTERS)
        if in_its_year := self._of_its_year(question, row):
            self.scores(question, in_its_year, self._encoder)  # made of the user's question, so never written
            near += in_its_year
        if not near:
            return None
        logits, _ = self.scores(question, near)
        if float(logits.max()) < best + NEARER:
            return None
        return f"it is nearer to {near[int(logits.argmax())]!r}, which asks something else"

    def _of_its_year(self, question: EncodedQuestion, row: ScopedEdit) -> list[str]:
        """The edit's question about the year that the question asks about, if neither the edit's prompt names a year
        nor another key this one: what holds today may not have held then."""
        year = year_in(asking_sentence(question.parsed.texts[0]))
        if year is None or year_in(row.texts[0]) or year in map(year_in, row.texts):
            return []
        return [of_year(row.texts[0], year, self._closed)]

    def _compared(self, texts: tuple[str, ...]) -> float:
        """The cohesion of an edit's keys: the mean, over the keys, of the best logit with another key; 0 for one key.
        The less alike the keys are, the more a question in scope may differ from them."""
        if len(texts) < 2:
            return 0.0
        keys = self._keys.encode(texts)
        return float(self._scorer.table(keys, keys).clone().fill_diagonal_(-torch.inf).amax(1).mean())

    def _another(self, question: EncodedQuestion, key: str) -> str | None:
        """A name in the question that is not in the key, as the question writes it; None if there is none."""
        said = words_of(key)  # folded as names are: "Davis" and its key's "Davis" are both "davi"
        reading = self._reading(question, key)
        others = (span for span in called_by_name(reading, self._closed) if not any(word in said for word in span))
        return next((as_written((reading,), span) for span in others), None)

    def _reading(self, question: EncodedQuestion, key: str) -> str:
        """The reading nearest to a key."""
        return question.parsed.texts[int((question.queries @ self.vectors([key])[0]).argmax())]

    def _nearest(self, question: EncodedQuestion, texts: Sequence[str], most: int) -> list[str]:
        if len(texts) <= most:
            return list(texts)
        near = (self.vectors(texts) @ question.queries.T).amax(1).topk(most).indices
        return [texts[at] for at in sorted(near.tolist())]


def bare(text: str) -> str:
    """The text for comparison word for word: casefolded, without surplus white space or closing punctuation."""
    return " ".join(text.casefold().split()).rstrip(" .?!。？！؟")


@lru_cache(maxsize=1024)  # an edit's names are the same in every question that it does not answer
def as_written(texts: tuple[str, ...], name: Span) -> str:
    """A folded name in the spelling of the first text that says it, for a message."""
    return next(filter(None, (surface(text, name) for text in texts)), " ".join(name))


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def share(score: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))
