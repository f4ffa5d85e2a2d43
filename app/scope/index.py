"""The scope index: decides in which live edit's scope a question is, over all serving editors. It knows no editor.

A question is compared with the keys of live edits: their prompts, and their given and generated paraphrases. The pair
scorer compares it closely with the nearest keys by cosine and with the edits whose names it contains, in contrast to
the background questions. Closed-class words and numbers may veto a match, and a counter-example or near miss may be
nearer. Among the remaining edits the one that exceeds its bound by most answers.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.domain.errors import IncompatibleEdit
from app.domain.generation import Signal
from app.domain.scope import ScopeRequest, Traffic
from app.domain.words import surface
from app.scope.background import Background, CompiledBackground
from app.scope.closed_words import ClosedWords
from app.scope.decision import EncodedQuestion, ScopeDecider, ScopedEdit
from app.scope.doubt import Doubt, doubt_of
from app.scope.encoder import Encoder
from app.scope.key_words import KeyWords
from app.scope.keys import KeyIndex
from app.scope.mentions import Mentions
from app.scope.misses import NearMiss, near_misses
from app.scope.other_names import OtherNames
from app.scope.parsed_question import ParsedQuestion, called_by_name, names_in, read
from app.scope.record import ScopeRecord, read_record
from app.scope.scope_learner import FALSE_HITS, ScopeLearner
from app.scope.vectors import Vectors

SHORTLIST = 16
"""The most keys in the shortlist that the pair scorer reads."""
OF_ONE = 3
"""The most keys of one edit in the shortlist."""
PLAUSIBLE = 0.2
"""The cosine below which a key is not worth reading."""
WEIGHED = 3
"""Half the number of edits that are compared in full: the three that the pair scorer finds likeliest, and the three
nearest."""
ABOUT_THE_SAME = 0.5
"""The cosine from which on another edit may be about the same."""
MOST_NEAR = 16


@dataclass(frozen=True, slots=True, eq=False)
class ScopePart:
    """An edition's part of the index: the age of each live edit (row -> place), the places of its keys, the
    background, and whether each edit has a name."""

    background: CompiledBackground
    order: Mapping[int, int]
    places: Tensor
    all_named: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An edit that a question may ask for; it does if `margin` is not negative. `why` gives the reason in words."""

    edit_id: str
    margin: float
    signals: Mapping[str, Signal]
    why: str


class ScopeIndex:
    """The rows of loaded edits, which only editions make visible. Threads may share the index."""

    def __init__(
        self,
        encoder: Encoder,
        decider: ScopeDecider,
        closed: ClosedWords,
        vectors: Vectors,
        background: Background,
        others: Sequence[str] = (),
        false_hits: Callable[[str], float] = lambda _: FALSE_HITS,
    ) -> None:
        """`others` are names for near misses. `false_hits` returns the share of other questions that a namespace's
        edits may answer."""
        self._encoder, self._decider, self._closed = encoder, decider, closed
        self._vectors, self._background, self.false_hits = vectors, background, false_hits
        self._others = OtherNames(vectors, others)
        self._learner = ScopeLearner(encoder, decider, closed, vectors, background, self._others, false_hits)
        self._keys = KeyIndex(encoder.width)
        self._mentions, self._key_words = Mentions(), KeyWords()
        self._rows: dict[int, ScopedEdit] = {}
        self._row_of: dict[str, int] = {}
        self._next = 0
        self._lock = threading.RLock()

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._row_of

    def __len__(self) -> int:
        """The number of loaded edits."""
        return len(self._row_of)

    @property
    def held_bytes(self) -> int:
        return self._keys.held_bytes

    def hear(self, traffic: Callable[[str], Traffic]) -> None:
        """Replace the source of a namespace's traffic."""
        self._background.traffic = traffic

    def question(self, turns: Sequence[str]) -> EncodedQuestion:
        """The question of a conversation's last turn, or of a bare prompt. It takes milliseconds and may run on any
        thread."""
        return self.encoded(self.parsed(turns))

    def parsed(self, turns: Sequence[str]) -> ParsedQuestion:
        """The same, as far as it can be read without the encoder."""
        return read(turns, self._closed)

    def encoded(self, parsed: ParsedQuestion) -> EncodedQuestion:
        """The parsed question, encoded."""
        return self._decider.encoded(parsed)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """The vectors (N, E) fp32 of length 1 of these texts. They are not kept, since people's questions are not."""
        return self._vectors.uncached(texts)

    def name_in(self, turns: Sequence[str]) -> str | None:
        """The first name in a question, as the question writes it."""
        parsed = self.parsed(turns)
        spans = names_in(parsed.said, self._closed)
        return surface(parsed.said, spans[0]) if spans else None

    def near_misses(self, turns: Sequence[str], besides: Iterable[str] = ()) -> list[NearMiss]:
        """Near misses of the question of a conversation's last turn, or of a bare prompt, about no name that a text
        `besides` says. It takes milliseconds, on any thread."""
        question = turns[-1].strip()
        names = names_in(question, self._closed)
        others = self._others.like(surface(question, names[0]) if names else None, besides)
        return near_misses(question, names, others, self._closed)

    def learn(self, request: ScopeRequest, widened: float | None = None) -> ScopeRecord:
        """Learn the requested scope, calibrated on questions that are known to ask something else. Its odds are
        multiplied by `widened`, which is the request's own factor if left out."""
        return self._learner.learn(request, request.widen if widened is None else widened, edit_count=len(self._rows))

    # -- rows

    def read_ahead(self, records: Iterable[Any]) -> None:
        """Encode the keys of many edits together, before they are loaded one by one. Invalid records are left for
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
            self._rows[row] = self._decider.row(edit_id, record)
            self._row_of[edit_id] = row
            self._keys.add(row, vectors)
            names = [tuple(span) for span in record.names]
            self._mentions.add(row, names)
            self._key_words.add(row, texts, names)

    def drop(self, edit_id: str) -> None:
        with self._lock:
            row = self._row_of.pop(edit_id)
            del self._rows[row]
            self._keys.remove(row)
            self._mentions.remove(row)
            self._key_words.remove(row)

    def compile(self, namespace: str, edit_ids: Iterable[str]) -> ScopePart:
        """Compile the part of an edition with these edits, oldest first. Edits without a scope here are left out."""
        background = self._background.of(namespace)
        with self._lock:
            rows = [self._row_of[edit_id] for edit_id in edit_ids if edit_id in self._row_of]
            order = {row: place for place, row in enumerate(rows)}
            return ScopePart(background, order, self._keys.of(rows), self._key_words.all_named(order))

    # -- deciding

    def rules_out_all(self, parsed: ParsedQuestion, part: ScopePart) -> bool:
        """True if a question asks for no live edit by its words alone: it says none of their names, and each of its
        readings names something that no key says, which vetoes every edit whichever reading is nearest to it."""
        if not part.all_named:
            return False
        names = [called_by_name(text, self._closed) for text in parsed.texts]
        with self._lock:
            strange = (any(self._key_words.is_strange(name, part.order) for name in each) for each in names)
            return all(strange) and not self._mentions.rows_in(parsed.words, part.order)

    def nearest(self, question: EncodedQuestion, part: ScopePart) -> Match | None:
        """The live edit that the question asks for or, if it asks for none (a negative margin), the nearest one. The
        newest wins among equal ones."""
        return next(iter(self.ranked(question, part)), None)

    def ranked(self, question: EncodedQuestion, part: ScopePart) -> list[Match]:
        """The nearest edits, the nearest first."""
        if not part.order:
            return []
        with self._lock:
            shortlist = self._shortlist(question, part)
            rows = {row: self._rows[row] for row, _ in shortlist}
            named = {row: self._mentions.mentioned(row, question.words) for row in rows}
        if not shortlist:
            return []
        logits, cosines = self._decider.scores(question, [rows[row].texts[at] for row, at in shortlist])
        likely = _best([row for row, _ in shortlist], logits, part.order)
        near = _best([row for row, _ in shortlist], cosines, part.order)
        background = part.background.near(question.queries)
        matches: dict[int, Match] = {}
        closer = dict.fromkeys((*likely, *near))
        self._decider.score_ahead(question, [rows[row] for row in closer])
        for row in closer:
            weighed, bound = self._decider.weigh(question, rows[row], background, named=named[row]), rows[row].bound
            matches[row] = Match(
                edit_id=rows[row].edit_id,
                margin=weighed.margin(bound),
                signals=weighed.signals(bound, given=rows[row].record.given),
                why=weighed.why(bound),
            )
        # rounded: two edits of one question differ by rounding only, and then the newest is to win
        order = sorted(matches, key=lambda row: (round(matches[row].margin, 3), part.order[row]), reverse=True)
        return [matches[row] for row in order]

    def doubt(self, question: EncodedQuestion, edit_id: str) -> Doubt:
        """The doubt about a question and an edit that it may ask for."""
        return doubt_of(question, self._rows[self._row_of[edit_id]].record, self._decider.vectors)

    def _shortlist(self, question: EncodedQuestion, part: ScopePart) -> list[tuple[int, int]]:
        """The shortlist, as (row, index of its key): the nearest keys, and those of edits whose names are said."""
        taken: dict[tuple[int, int], None] = {}
        counts: dict[int, int] = {}

        def take(places: Iterable[int], most: int) -> None:
            for place in places:
                row, key = self._keys.place(place)
                if row not in part.order or counts.get(row, 0) >= OF_ONE or len(taken) >= most:
                    continue  # a row that is given back while this is decided is none of the edition's
                if (row, key) not in taken:
                    counts[row] = counts.get(row, 0) + 1
                    taken[row, key] = None

        near, _ = self._keys.nearest(question.queries, part.places, 4 * SHORTLIST, PLAUSIBLE)
        take(near.tolist(), SHORTLIST)
        named = [row for row in self._mentions.rows_in(question.words, part.order) if row not in counts]
        if named:
            places = self._keys.of(named)
            take(places[self._keys.cosines(question.queries, places).argsort(descending=True)].tolist(), 2 * SHORTLIST)
        return list(taken)

    # -- competing edits

    def near(self, request: ScopeRequest, among: Iterable[str]) -> list[str]:
        """Return those of these edits, live or not, that may be about the same, by their names or by what they ask."""
        question = self.question(request.keys[0])
        with self._lock:
            ours = {self._row_of[edit_id]: edit_id for edit_id in among if edit_id in self._row_of}
            rows = self._mentions.rows_in(question.words, ours)
            near, _ = self._keys.nearest(question.queries, self._keys.of(list(ours)), MOST_NEAR, ABOUT_THE_SAME)
            rows |= {self._keys.place(place)[0] for place in near.tolist()}
            return [ours[row] for row in sorted(rows)]


def _best(rows: Sequence[int], values: Tensor, order: Mapping[int, int]) -> list[int]:
    """The few rows whose keys have the highest values (N,), the newest first among equal ones."""
    best: dict[int, float] = {}
    for row, value in zip(rows, values.tolist(), strict=True):
        best[row] = max(value, best.get(row, value))
    return sorted(best, key=lambda row: (best[row], order[row]), reverse=True)[:WEIGHED]


def widen(learned: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The record, as JSON, with the odds of its bound divided by `factor`."""
    return {**learned, "widened": float(learned.get("widened", 1.0)) * factor}
