"""Which live edit a question asks for: one index for the edits of all serving editors, which it does not know.

A question is compared with the keys of live edits: its prompt, the paraphrases that it was given, those that were made.
The nearest by cosine, and those whose names it says, are read closely by the pair scorer, beside how near it lies to
questions that are asked anyway; closed-class words and numbers may forbid what is left; counter-examples and near
misses may lie nearer. The edit whose bound is exceeded most answers.
"""

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.domain.generation import Signal
from app.domain.scope import ScopeRequest
from app.domain.words import Span, plain_words, surface, words_of
from app.scope.closed import ClosedWords
from app.scope.encoder import Encoded, Encoder
from app.scope.keys import Keys
from app.scope.mentions import Mentions
from app.scope.reading import Asked, names_in, read
from app.scope.record import ScopeRecord, read_record
from app.scope.scorer import PairScorer

SHORTLIST = 16
"""Keys that are read closely, of all that lie near."""
OF_ONE = 3
"""Keys of one edit among them."""
PLAUSIBLE = 0.2
"""Cosine below which a key is not worth reading."""
UNNAMED = 2.0
"""Taken from the logit of a question that says none of the names that were found in the edit's."""
NEAREST = 5
"""Questions of the background that contrast is taken of."""
ABOUT_THE_SAME = 0.5
"""Cosine from which on another edit may be about the same."""
MOST_NEAR = 16


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A prompt's question, encoded: one `Encoded` for each of its readings, and its words."""

    asked: Asked
    readings: tuple[Encoded, ...]

    @property
    def queries(self) -> Tensor:
        """(W, E)."""
        return torch.stack([each.vector for each in self.readings])


@dataclass(frozen=True, slots=True, eq=False)
class ScopePart:
    """What an edition sees of the index: each live edit's place in their age (row -> place), and where their keys
    stand."""

    namespace: str
    order: Mapping[int, int]
    places: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An edit that a question may ask for; it does where `margin` is not negative. `why` tells it in words."""

    edit_id: str
    margin: float
    signals: Mapping[str, Signal]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """An edit: its record, the texts of its keys in the order of the matrix, its counter-keys."""

    edit_id: str
    record: ScopeRecord
    texts: tuple[str, ...]
    counter: tuple[str, ...]

    @property
    def bound(self) -> float:
        """As a logit."""
        return _logit(self.record.bound) - math.log(self.record.widened)


class Scope:
    """Rows, never visible by themselves, and parts of editions. Threads may share it."""

    def __init__(
        self,
        encoder: Encoder,
        scorer: PairScorer | None,
        closed: ClosedWords,
        background: Sequence[str] = (),
        traffic: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        """`background` are questions as they are asked anywhere, `traffic` those that are asked in a namespace."""
        self._encoder, self._scorer, self._closed = encoder, scorer, closed
        self._background, self._traffic = tuple(background), traffic
        self._contrast: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        self._keys = Keys(encoder.width)
        self._mentions = Mentions()
        self._rows: dict[int, _Row] = {}
        self._row_of: dict[str, int] = {}
        self._next = 0
        self._lock = threading.RLock()

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._row_of

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes

    def question(self, turns: Sequence[str]) -> Question:
        """What a conversation's last turn, or a bare prompt, asks. It takes milliseconds, on any thread."""
        asked = read(turns, self._closed)
        return Question(asked, tuple(self._encoder.encode(asked.texts)))

    def name_in(self, turns: Sequence[str]) -> str | None:
        """The first name that a question says, as it writes it."""
        asked = read(turns, self._closed)
        spans = names_in(asked.said, self._closed)
        return surface(asked.said, spans[0]) if spans else None

    # -- learning

    def learn(self, request: ScopeRequest, widened: float = 1.0) -> ScopeRecord:
        """The scope that is asked for, calibrated on the questions that are known to be others."""
        own = [read(turns, self._closed) for turns in request.keys]
        given = _spans((request.subject,) if request.subject else ())
        names = given or _found(own, self._closed)
        record = ScopeRecord(
            keys=_texts(own),
            made=_texts(read(turns, self._closed) for turns in request.made),
            counter=_texts(read(turns, self._closed) for turns in request.counter),
            misses=_texts(read(turns, self._closed) for turns in request.misses),
            names=[list(span) for span in dict.fromkeys((*names, *(_spans(request.aliases) if names else ())))],
            given=bool(given),
            bound=0.5,
            widened=widened,
            encoder=self._encoder.fingerprint,
        )
        return self._calibrated(record, request.namespace)

    def _calibrated(self, record: ScopeRecord, namespace: str) -> ScopeRecord:
        return record

    # -- rows

    def read_ahead(self, records: Iterable[Any]) -> None:
        """Encode the keys of many edits together, before they are loaded one by one."""
        texts = {text for each in records for name in ("keys", "made") for text in each.get(name, ()) if text}
        self._encoder.encode(sorted(texts))

    def load(self, edit_id: str, learned: Any) -> None:
        """Take an edit's keys into memory. Raises IncompatibleEdit for a record that cannot be read."""
        record = read_record(edit_id, learned)
        texts = tuple(dict.fromkeys((*record.keys, *record.made)))
        counter = tuple(dict.fromkeys((*record.counter, *record.misses)))
        vectors = torch.stack([each.vector for each in self._encoder.encode(texts)])
        with self._lock:
            assert edit_id not in self._row_of, f"{edit_id} is loaded already"
            row, self._next = self._next, self._next + 1
            self._rows[row] = _Row(edit_id, record, texts, counter)
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
        with self._lock:
            rows = [self._row_of[edit_id] for edit_id in edit_ids if edit_id in self._row_of]
            return ScopePart(namespace, {row: place for place, row in enumerate(rows)}, self._keys.of(rows))

    # -- deciding

    def decide(self, question: Question, part: ScopePart) -> Found | None:
        """The live edit that the question asks for, if there is one."""
        found = self.nearest(question, part)
        return found if found is not None and found.margin >= 0 else None

    def nearest(self, question: Question, part: ScopePart) -> Found | None:
        """The same, or, where it asks for none, the edit that came nearest. Of equal ones the newest."""
        if not part.order:
            return None
        with self._lock:
            shortlist = self._shortlist(question, part)
            rows = {row: self._rows[row] for row, _, _ in shortlist}
            said = {row: self._mentions.said(row, question.asked.words) for row in rows}
        if not shortlist:
            return None
        contrast = self._contrast_of(question, part.namespace)
        best: dict[int, tuple[float, str, float]] = {}
        readings = self._scores(question, [rows[row].texts[at] for row, at, _ in shortlist], contrast)
        for (row, at, cosine), score in zip(shortlist, readings, strict=True):
            if row not in best or score > best[row][0]:
                best[row] = (score, rows[row].texts[at], cosine)
        found = {row: self._judged(question, rows[row], *best[row], contrast, said=said[row]) for row in best}
        # rounded: two edits of one question differ by rounding only, and then the newest is to win
        return found[max(found, key=lambda row: (round(found[row].margin, 3), part.order[row]))]

    def _shortlist(self, question: Question, part: ScopePart) -> list[tuple[int, int, float]]:
        """(row, which key, cosine) of the keys that are read: the nearest, and those of edits whose names are said."""
        cosines = self._keys.similarity(question.queries, part.places)
        taken: list[tuple[int, int, float]] = []
        counts: dict[int, int] = {}

        def take(order: Iterable[int], most: int) -> None:
            for at in order:
                row, key = self._keys.place(int(part.places[at]))
                if counts.get(row, 0) < OF_ONE and (row, key) not in {each[:2] for each in taken}:
                    counts[row] = counts.get(row, 0) + 1
                    taken.append((row, key, float(cosines[at])))
                if len(taken) >= most:
                    return

        near = cosines.topk(min(4 * SHORTLIST, len(cosines)))
        take(near.indices[near.values > PLAUSIBLE].tolist(), SHORTLIST)
        named = [row for row in self._mentions.found(question.asked.words) if row in part.order and row not in counts]
        if named:
            places = torch.searchsorted(part.places, self._keys.of(named))
            take(places[cosines[places].argsort(descending=True)].tolist(), 2 * SHORTLIST)
        return taken

    def _scores(self, question: Question, texts: Sequence[str], contrast: float) -> list[float]:
        """Of each text, the logit that the question asks the same, in the reading that is nearest to it."""
        keys = self._encoder.encode(texts)
        cosines = torch.stack([each.vector for each in keys]) @ question.queries.T  # (N, W)
        best = cosines.argmax(1).tolist()
        logits = torch.zeros(len(keys))
        for at, reading in enumerate(question.readings):
            mine = [n for n, reading_of in enumerate(best) if reading_of == at]
            if mine and self._scorer is not None:
                logits[mine] = self._scorer.score(reading, [keys[n] for n in mine])
        nearest = cosines.amax(1)
        found: list[float] = combine(logits, nearest, nearest - contrast).tolist()
        return found

    def _judged(
        self, question: Question, row: _Row, score: float, key: str, cosine: float, contrast: float, *, said: bool
    ) -> Found:
        if not said and not row.record.given:
            score -= UNNAMED
        margin, told = score - row.bound, ""
        reason: str | None = None
        if not said and row.record.given:
            reason = f"it says none of the names {', '.join(' '.join(name) for name in row.record.names)}"
        if reason is None:
            reason = self._closed.veto(plain_words(question.asked.texts[-1]), plain_words(key))
        if reason is None and margin >= 0 and row.counter:
            against = self._scores(question, row.counter, contrast)
            worst = max(range(len(against)), key=against.__getitem__)
            if against[worst] >= score:
                reason = f"it is nearer to {row.counter[worst]!r}, which the edit leaves alone"
        if reason is not None:
            margin, told = min(margin, 0.0) - 1.0, f"; but {reason}"
        signals = {
            "same": Signal(round(_share(score), 4), round(_share(row.bound), 4)),
            "cosine": Signal(round(cosine, 4), round(contrast, 4)),
            "named": Signal(float(said), float(row.record.given)),
        }
        why = f"nearest to {key!r}: the same with {_share(score):.2f}, bound {_share(row.bound):.2f}{told}"
        return Found(edit_id=row.edit_id, margin=margin, signals=signals, why=why)

    def _contrast_of(self, question: Question, namespace: str) -> float:
        """How near the question lies to those that are asked anyway: the mean of the nearest few."""
        texts = tuple(self._traffic(namespace))
        held = self._contrast.get(namespace)
        if held is None or held[0] != texts:
            vectors = self._encoder.vectors([*self._background, *texts])
            held = self._contrast[namespace] = (texts, vectors)
        if not len(held[1]):
            return 0.0
        near = (held[1] @ question.queries.T).amax(1)
        return float(near.topk(min(NEAREST, len(near))).values.mean())

    # -- what stands beside

    def near(self, request: ScopeRequest) -> list[str]:
        """Edits in memory, live or not, that may be about the same: by their names, or by what they ask."""
        question = self.question(request.keys[0])
        with self._lock:
            rows = self._mentions.found(question.asked.words)
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


def combine(logits: Tensor, cosine: Tensor, contrast: Tensor) -> Tensor:  # TEMPORARY
    return 12 * (cosine - 0.75)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
