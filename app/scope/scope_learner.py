"""The learning of an edit's scope from its request: its keys, its names, near misses that narrow it, and its bound."""

from collections.abc import Callable, Iterable, Sequence

import torch

from app.domain.scope import ScopeRequest
from app.domain.words import Span, says, surface, words_of
from app.scope.background import SAME, Background, CompiledBackground, NearbyBackground
from app.scope.closed_words import ClosedWords
from app.scope.decision import ScopeDecider, ScopedEdit, share
from app.scope.encoder import Encoder
from app.scope.misses import near_misses
from app.scope.other_names import OtherNames
from app.scope.parsed_question import ParsedQuestion, names_in, read
from app.scope.record import ScopeRecord
from app.scope.vectors import Vectors

MOST_COUNTER = 32
"""The most counter-examples and probes that an edit keeps."""
BOUND = 0.5
"""The probability, of asking the same, that a question must reach before anything is known about other questions."""
FALSE_HITS = 0.002
MAY_BE_NEAR = 0.4
"""The cosine below which a background question is ignored in the calibration of an edit's bound."""
CALIBRATED_ON = 24
"""The number of nearest background questions on which an edit's bound is calibrated."""
FEW_EDITS = 32
"""The number of edits that a namespace is assumed to get, so that the first ones do not use up all of its false
hits."""
CLEAR = 0.05
"""The margin, as a logit, by which a bound exceeds the questions that it must keep out."""
ALONE = NearbyBackground(torch.zeros(0), torch.zeros(0, 0))
"""The empty background."""


class ScopeLearner:
    """Learns scopes without an index: an edit is compared only with questions that it would see."""

    def __init__(
        self,
        encoder: Encoder,
        decider: ScopeDecider,
        closed: ClosedWords,
        vectors: Vectors,
        background: Background,
        others: OtherNames,
        false_hits: Callable[[str], float],
    ) -> None:
        """`others` are names for near misses. `false_hits` returns the share of other questions that a namespace's
        edits may answer together."""
        self._encoder, self._decider, self._closed = encoder, decider, closed
        self._vectors, self._background = vectors, background
        self._others, self._false_hits = others, false_hits

    def learn(self, request: ScopeRequest, widened: float, edit_count: int) -> ScopeRecord:
        """Learn the requested scope, calibrated on questions that are known to ask something else. The edit is to be
        live beside `edit_count` others."""
        own = [read(turns, self._closed) for turns in request.keys]
        given = _spans((request.subject,) if request.subject else ())
        aliased = _with_aliases(own[0].texts[0], request)
        names = given or _names_of(own, self._closed)
        record = ScopeRecord(
            keys=_texts(own),
            made=[*_texts(read(turns, self._closed) for turns in request.made), *aliased],
            counter=self._nearest(own[0].texts[0], _texts(read(turns, self._closed) for turns in request.counter)),
            misses=_texts(read(turns, self._closed) for turns in request.misses),
            names=[list(span) for span in dict.fromkeys((*names, *(_spans(request.aliases) if names else ())))],
            given=bool(given),
            bound=BOUND,
            widened=widened,
            encoder=self._encoder.fingerprint,
        )
        return self._calibrated(self._narrowed(record, names), request.namespace, edit_count)

    def _nearest(self, question: str, counter: list[str]) -> list[str]:
        """The texts that are near enough to matter, out of possibly very many, such as a namespace's probes."""
        if len(counter) <= MOST_COUNTER:
            return counter
        near = self._vectors.of(counter) @ self._vectors.of([question])[0]
        return [counter[at] for at in sorted(near.topk(MOST_COUNTER).indices.tolist())]

    def _narrowed(self, record: ScopeRecord, names: Sequence[Span]) -> ScopeRecord:
        """The record with those near misses that the edit would answer without them."""
        row = self._decider.row("", record)
        named = next((name for span in names if (name := surface(record.keys[0], span))), None)
        others = self._others.like(named, (*record.keys, *record.made, *(" ".join(name) for name in record.names)))
        misses = near_misses(record.keys[0], names, others, self._closed)
        untried = [miss.text for miss in misses if miss.text not in (*record.keys, *record.made)]
        self._encoder.encode(untried)  # together, which is several times as fast as one by one
        answered = [text for text in untried if self._margin(text, row) >= 0]
        return record.model_copy(update={"misses": list(dict.fromkeys((*record.misses, *answered)))})

    def _calibrated(self, record: ScopeRecord, namespace: str, edit_count: int) -> ScopeRecord:
        """The record with a calibrated bound, never below the default. The share of the questions without an edit that
        exceed it is at most the edit's part of the stated share, which all edits have together. Questions in the very
        same words as the edit's do not count."""
        row = self._decider.row("", record.model_copy(update={"widened": 1.0}))  # what an operator widens comes on top
        background = self._background.of(namespace)
        texts, vectors = background.texts[: background.others], background.vectors[: background.others]
        if not texts:
            return record
        own = torch.stack([each.vector for each in self._encoder.encode(row.texts)])
        near = (vectors @ own.T).amax(1).topk(min(CALIBRATED_ON, len(texts)))
        sample = [texts[at] for at in near.indices[(near.values < SAME) & (near.values > MAY_BE_NEAR)].tolist()]
        self._encoder.encode(sample)
        over = sorted((self._margin(text, row, background) for text in sample), reverse=True)
        may = int(self._false_hits(namespace) * len(texts) / max(FEW_EDITS, edit_count))
        bound, hits = row.bound, sum(margin >= 0 for margin in over)
        if hits > may:
            bound, hits = row.bound + over[may] + CLEAR, may
        expected = (1 + hits) / (1 + len(texts))
        measured = {"bound": share(bound), "rate": round(expected, 6), "rests_on": len(texts)}
        return record.model_copy(update=measured)

    def _margin(self, text: str, row: ScopedEdit, background: CompiledBackground | None = None) -> float:
        """The margin by which a text would exceed the bound of an edit that is not loaded."""
        question = self._decider.question((text,))
        names = [tuple(span) for span in row.record.names]
        named = not names or any(says(question.words, span) for span in names)
        near = ALONE if background is None else background.near(question.queries)
        return self._decider.weigh(question, row, near, named=named).margin(row.bound)


def _texts(questions: Iterable[ParsedQuestion]) -> list[str]:
    """The fullest reading of each prompt, without duplicates."""
    return list(dict.fromkeys(each.texts[0] for each in questions))


def _with_aliases(question: str, request: ScopeRequest) -> list[str]:
    """The question with each alias in place of the subject."""
    subject = request.subject or ""
    return [question.replace(subject, alias) for alias in request.aliases if subject and subject in question]


def _spans(names: Iterable[str]) -> tuple[Span, ...]:
    return tuple(span for name in names if (span := tuple(words_of(name))))


def _names_of(questions: Sequence[ParsedQuestion], closed: ClosedWords) -> tuple[Span, ...]:
    """The names in the question. If a paraphrase says none of them, its names are added."""
    names = names_in(questions[0].said, closed)
    for each in questions[1:]:
        if names and not any(_said(each, span) for span in names):
            names = (*names, *names_in(each.said, closed))
    return names


def _said(question: ParsedQuestion, span: Span) -> bool:
    return f" {' '.join(span)} " in f" {' '.join(question.words)} "
