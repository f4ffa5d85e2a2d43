"""Which live edit a question asks for: one index for the edits of all serving editors, which it does not know.

A question is compared with the keys of live edits: its prompt, the paraphrases that it was given, those that were made.
The nearest by cosine, and those whose names it says, are read closely by the pair scorer, beside how near it lies to
questions that are asked anyway; closed-class words and numbers may forbid what is left; counter-examples and near
misses may lie nearer. The edit whose bound is exceeded most answers.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.scope import ScopeRequest
from app.domain.words import Span, says, surface, words_of
from app.scope.background import SAME, Background, Contrast, Usual
from app.scope.closed import ClosedWords
from app.scope.deciding import Deciding, Question, Row, share
from app.scope.doubt import Doubt, doubt_of
from app.scope.encoder import Encoder
from app.scope.keys import Keys
from app.scope.mentions import Mentions
from app.scope.misses import Miss, near_misses
from app.scope.reading import Asked, names_in, read
from app.scope.record import ScopeRecord, read_record
from app.scope.vectors import Vectors

SHORTLIST = 16
"""Keys that are read closely, of all that lie near."""
OF_ONE = 3
"""Keys of one edit among them."""
PLAUSIBLE = 0.2
"""Cosine below which a key is not worth reading."""
WEIGHED = 4
"""Edits that a question is weighed against, of those whose keys were read."""
ABOUT_THE_SAME = 0.5
"""Cosine from which on another edit may be about the same."""
MOST_NEAR = 16
MOST_COUNTER = 32
"""Counter-examples and probes that an edit keeps."""
BOUND = 0.5
"""How likely a question must be to ask the same, before anything is known of what else is asked."""
FALSE_HITS = 0.002
MAY_BE_NEAR = 0.4
"""Cosine below which no question that is asked anyway is held against an edit when its bound is calibrated."""
CALIBRATED_ON = 24
"""Questions that are asked anyway, the nearest, that are read closely for an edit's bound."""
CLEAR = 0.05
"""By which a bound, as a logit, stands above what it is to keep out."""


@dataclass(frozen=True, slots=True, eq=False)
class ScopePart:
    """What an edition sees of the index: each live edit's place in their age (row -> place), where their keys
    stand, and what is asked beside them anyway."""

    usual: Usual
    order: Mapping[int, int]
    places: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An edit that a question may ask for; it does where `margin` is not negative. `why` tells it in words."""

    edit_id: str
    margin: float
    signals: Mapping[str, Signal]
    why: str


class Scope:
    """Rows, never visible by themselves, and parts of editions. Threads may share it."""

    def __init__(
        self,
        encoder: Encoder,
        deciding: Deciding,
        closed: ClosedWords,
        vectors: Vectors,
        background: Background,
        others: Sequence[str] = (),
        false_hits: Callable[[str], float] = lambda _: FALSE_HITS,
    ) -> None:
        """`others` are names to make near misses with; `false_hits`, by namespace, the share of other questions that an
        edit may answer."""
        self._encoder, self._deciding, self._closed = encoder, deciding, closed
        self._vectors, self._background = vectors, background
        self._others, self._false_hits = tuple(others), false_hits
        self._keys = Keys(encoder.width)
        self._mentions = Mentions()
        self._rows: dict[int, Row] = {}
        self._row_of: dict[str, int] = {}
        self._next = 0
        self._lock = threading.RLock()

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._row_of

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes

    def hear(self, traffic: Callable[[str], Sequence[str]]) -> None:
        """Questions that are asked in a namespace, as they are kept."""
        self._background.traffic = traffic

    def question(self, turns: Sequence[str]) -> Question:
        """What a conversation's last turn, or a bare prompt, asks. It takes milliseconds, on any thread."""
        asked = read(turns, self._closed)
        return Question(asked, tuple(self._encoder.encode(asked.texts)), asked.words)

    def name_in(self, turns: Sequence[str]) -> str | None:
        """The first name that a question says, as it writes it."""
        asked = read(turns, self._closed)
        spans = names_in(asked.said, self._closed)
        return surface(asked.said, spans[0]) if spans else None

    def near_misses(self, turns: Sequence[str]) -> list[Miss]:
        """Questions made of a conversation's last turn, or of a bare prompt, that ask something else."""
        question = turns[-1].strip()
        return near_misses(question, names_in(question, self._closed), self._others, self._closed)

    # -- learning

    def learn(self, request: ScopeRequest, widened: float = 1.0) -> ScopeRecord:
        """The scope that is asked for, calibrated on the questions that are known to be others."""
        own = [read(turns, self._closed) for turns in request.keys]
        given = _spans((request.subject,) if request.subject else ())
        aliased = _with_aliases(own[0].texts[0], request)
        names = given or _found(own, self._closed)
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
        return self._calibrated(self._narrowed(record, names), request.namespace)

    def _nearest(self, question: str, counter: list[str]) -> list[str]:
        """Of very many, as the probes of a namespace may be, those that lie near enough to matter."""
        if len(counter) <= MOST_COUNTER:
            return counter
        near = self._vectors.of(counter) @ self._vectors.of([question])[0]
        return [counter[at] for at in sorted(near.topk(MOST_COUNTER).indices.tolist())]

    def _narrowed(self, record: ScopeRecord, names: Sequence[Span]) -> ScopeRecord:
        """With the near misses that it would answer without them."""
        row = Row("", record)
        made = near_misses(record.keys[0], names, self._others, self._closed)
        asked = [miss.text for miss in made if miss.text not in (*record.keys, *record.made)]
        self._encoder.encode(asked)  # together, which is several times as fast as one by one
        answered = [text for text in asked if self._margin(text, row) >= 0]
        return record.model_copy(update={"misses": list(dict.fromkeys((*record.misses, *answered)))})

    def _calibrated(self, record: ScopeRecord, namespace: str) -> ScopeRecord:
        """With a bound that no more of the questions that are asked anyway exceed than the stated share; never below
        the bound that ships. What asks the very same is none of them."""
        row = Row("", record)
        usual = self._background.of(namespace)
        texts, vectors = usual.texts[: usual.shipped], usual.vectors[: usual.shipped]
        if not texts:
            return record
        own = torch.stack([each.vector for each in self._encoder.encode(row.texts)])
        near = (vectors @ own.T).amax(1).topk(min(CALIBRATED_ON, len(texts)))
        asked = [texts[at] for at in near.indices[(near.values < SAME) & (near.values > MAY_BE_NEAR)].tolist()]
        self._encoder.encode(asked)
        over = sorted((self._margin(text, row, usual) for text in asked), reverse=True)
        may = int(self._false_hits(namespace) * len(texts) / max(1, len(self._rows)))  # all edits share them
        bound, hits = row.bound, sum(margin >= 0 for margin in over)
        if hits > may:
            bound, hits = row.bound + over[may] + CLEAR, may
        expected = (1 + hits) / (1 + len(texts))
        told = {"bound": share(bound), "rate": round(expected, 6), "rests_on": len(texts)}
        return record.model_copy(update=told)

    def _margin(self, text: str, row: Row, usual: Usual | None = None) -> float:
        """By how much a text would exceed the bound of an edit that is not loaded."""
        question = self.question((text,))
        names = [tuple(span) for span in row.record.names]
        named = not names or any(says(question.words, span) for span in names)
        near = Contrast(0.0) if usual is None else usual.near(question.queries)
        return self._deciding.weigh(question, row, near, named=named).margin(row.bound)

    # -- rows

    def read_ahead(self, records: Iterable[Any]) -> None:
        """Encode the keys of many edits together, before they are loaded one by one. What is no record is left for
        `load` to refuse."""
        texts: set[str] = set()
        for each in records:
            with suppress(IncompatibleEdit):
                record = read_record("", each)
                texts.update(record.keys, record.made)
        self._vectors.of(sorted(texts))

    def load(self, edit_id: str, learned: Any) -> None:
        """Take an edit's keys into memory. Raises IncompatibleEdit for a record that cannot be read."""
        record = read_record(edit_id, learned)
        texts = tuple(dict.fromkeys((*record.keys, *record.made)))
        vectors = self._vectors.of(texts)
        with self._lock:
            assert edit_id not in self._row_of, f"{edit_id} is loaded already"
            row, self._next = self._next, self._next + 1
            self._rows[row] = Row(edit_id, record)
            self._row_of[edit_id] = row
            self._keys.add(row, vectors)
            self._mentions.add(row, [tuple(span) for span in record.names])

    def drop(self, edit_id: str) -> None:
        with self._lock:
            row = self._row_of.pop(edit_id)
            del self._rows[row]
            self._keys.remove(row)
            self._mentions.remove(row)

    def compile(self, namespace: str, edit_ids: Iterable[str]) -> ScopePart:
        """What an edition of these edits, the oldest first, sees: those that have a scope here."""
        usual = self._background.of(namespace)
        with self._lock:
            rows = [self._row_of[edit_id] for edit_id in edit_ids if edit_id in self._row_of]
            return ScopePart(usual, {row: place for place, row in enumerate(rows)}, self._keys.of(rows))

    # -- deciding

    def nearest(self, question: Question, part: ScopePart) -> Found | None:
        """The live edit that the question asks for or, where it asks for none (a negative margin), the one that came
        nearest. Of equal ones the newest."""
        return next(iter(self.ranked(question, part)), None)

    def ranked(self, question: Question, part: ScopePart) -> list[Found]:
        """The edits that came nearest, the nearest first."""
        if not part.order:
            return []
        with self._lock:
            shortlist = self._shortlist(question, part)
            rows = {row: self._rows[row] for row, _ in shortlist}
            named = {row: self._mentions.said(row, question.words) for row in rows}
        if not shortlist:
            return []
        logits, _ = self._deciding.scores(question, [rows[row].texts[at] for row, at in shortlist])
        best: dict[int, float] = {}
        for (row, _), value in zip(shortlist, logits.tolist(), strict=True):
            best[row] = max(value, best.get(row, value))
        contrast = part.usual.near(question.queries)
        found: dict[int, Found] = {}
        for row in sorted(best, key=lambda row: (best[row], part.order[row]))[-WEIGHED:]:
            weighed, bound = self._deciding.weigh(question, rows[row], contrast, named=named[row]), rows[row].bound
            found[row] = Found(
                edit_id=rows[row].edit_id,
                margin=weighed.margin(bound),
                signals=weighed.signals(bound, given=rows[row].record.given),
                why=weighed.why(bound),
            )
        # rounded: two edits of one question differ by rounding only, and then the newest is to win
        order = sorted(found, key=lambda row: (round(found[row].margin, 3), part.order[row]), reverse=True)
        return [found[row] for row in order]

    def doubt(self, question: Question, edit_id: str) -> Doubt:
        """What a judge is shown of a question and an edit that it may ask for."""
        return doubt_of(question, self._rows[self._row_of[edit_id]].record, self._encoder)

    def _shortlist(self, question: Question, part: ScopePart) -> list[tuple[int, int]]:
        """(row, which of its keys) of those that are read: the nearest, and those of edits whose names are said."""
        cosines = self._keys.similarity(question.queries, part.places)
        taken: dict[tuple[int, int], None] = {}
        counts: dict[int, int] = {}

        def take(order: Iterable[int], most: int) -> None:
            for at in order:
                row, key = self._keys.place(int(part.places[at]))
                if row not in part.order or counts.get(row, 0) >= OF_ONE or len(taken) >= most:
                    continue  # a row that is given back while this is decided is none of the edition's
                if (row, key) not in taken:
                    counts[row] = counts.get(row, 0) + 1
                    taken[row, key] = None

        near = cosines.topk(min(4 * SHORTLIST, len(cosines)))
        take(near.indices[near.values > PLAUSIBLE].tolist(), SHORTLIST)
        named = [row for row in self._mentions.found(question.words) if row in part.order and row not in counts]
        if named:
            places = torch.searchsorted(part.places, self._keys.of(named))
            take(places[cosines[places].argsort(descending=True)].tolist(), 2 * SHORTLIST)
        return list(taken)

    # -- what stands beside

    def near(self, request: ScopeRequest) -> list[str]:
        """Edits in memory, live or not, that may be about the same: by their names, or by what they ask."""
        question = self.question(request.keys[0])
        with self._lock:
            rows = self._mentions.found(question.words)
            if len(self._row_of):
                places = self._keys.of(list(self._rows))
                near = self._keys.similarity(question.queries, places).topk(min(MOST_NEAR, len(places)))
                rows |= {
                    self._keys.place(int(places[at]))[0]
                    for at, value in zip(near.indices.tolist(), near.values.tolist(), strict=True)
                    if value >= ABOUT_THE_SAME
                }
            return [self._rows[row].edit_id for row in sorted(rows)]


def widen(learned: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A record (as JSON) whose edit answers so many times as readily."""
    return {**learned, "widened": float(learned.get("widened", 1.0)) * factor}


def _texts(asked: Iterable[Asked]) -> list[str]:
    """The fullest reading of each, without repeats."""
    return list(dict.fromkeys(each.texts[0] for each in asked))


def _with_aliases(question: str, request: ScopeRequest) -> list[str]:
    """The question with each alias in the place of the subject."""
    subject = request.subject or ""
    return [question.replace(subject, alias) for alias in request.aliases if subject and subject in question]


def _spans(names: Iterable[str]) -> tuple[Span, ...]:
    return tuple(span for name in names if (span := tuple(words_of(name))))


def _found(asked: Sequence[Asked], closed: ClosedWords) -> tuple[Span, ...]:
    """Names in the question; those of a paraphrase that says none of them are names of it too."""
    names = names_in(asked[0].said, closed)
    for each in asked[1:]:
        if names and not any(_said(each, span) for span in names):
            names = (*names, *names_in(each.said, closed))
    return names


def _said(asked: Asked, span: Span) -> bool:
    return f" {' '.join(span)} " in f" {' '.join(asked.words)} "
