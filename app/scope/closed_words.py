"""Closed-class words: the small words of a language, which change what a question asks or begin one.

They are finite and may be listed, one file per language; content words may not. Columns: class, words. The sides of an
`exclusive` line contradict one another: questions with `before` and with `after` never ask the same.
Words whose sense depends on their neighbours, such as "on" and "in", are on no such line.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

from app.domain.words import fold, plain_words

LANGUAGES = ("en", "de", "fr")
SMALL, AUXILIARY, PRONOUN = "small", "auxiliary", "pronoun"
JOINING, EXCLUSIVE = "joining", "exclusive"
"""`small` words begin or join phrases and are not names, nor are `auxiliary` verbs, which often follow a name. A
`pronoun` refers to something said before, and a `joining` word continues it. On an `exclusive` line each side denies
the others."""
VARIANT = "variant"
"""Small words that are one word, spelled by the sound that follows."""
NOUNS, DETERMINER = "nouns", "determiner"
"""`nouns` says "capital" in the file of a language that writes every noun with a capital. There a `determiner` shows
that the word after it is a noun rather than a name."""
YEAR, ROUTE, QUALIFIED = "year", "route", "qualified"
"""Near misses are written with these: the words before a year, the two words that name where a way begins and ends,
and, after a colon, the words that may come between one of these articles and its noun."""

CLEARLY = 2
"""The small words, beyond those of any other language, by which a text is clearly in one: "war" and "die" are words of
two languages."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PARTED = re.compile(r"\d+(?:[.,]\d+)+")
NUMBERS = 0
"""The number that represents numbers among the exclusive lines, which are counted from 1."""


@dataclass(frozen=True)
class LanguageGrammar:
    """One language's small words, as spelled, and the words that near misses are written with."""

    small: frozenset[str]
    """The words that begin or join phrases and are not names, with auxiliary verbs and joining words."""
    auxiliaries: frozenset[str]
    pronouns: frozenset[str]
    joining: frozenset[str]
    year: str
    route: tuple[str, str]
    articles: tuple[str, ...]
    qualifiers: tuple[str, ...]
    variants: Mapping[str, str]
    """Each variant of a small word -> the word."""
    determiners: frozenset[str]
    capital_nouns: bool
    """True if every noun has a capital, so that a capital alone is no evidence for a name."""

    @cached_property
    def recognised(self) -> frozenset[str]:
        """The words by which the language is recognised."""
        return self.small | self.pronouns | self.determiners

    def is_small(self, word: str) -> bool:
        """This and the next three take a folded word."""
        return _among(word, self.small)

    def is_joining(self, word: str) -> bool:
        return _among(word, self.joining)

    def is_auxiliary(self, word: str) -> bool:
        return _among(word, self.auxiliaries)

    def is_determiner(self, word: str) -> bool:
        return word in self.determiners


@dataclass(frozen=True, slots=True)
class ClosedWords:
    """The closed-class words of all languages together, folded."""

    small: frozenset[str]
    auxiliaries: frozenset[str]
    pronouns: frozenset[str]
    joining: frozenset[str]
    sides: Mapping[str, frozenset[tuple[int, int]]]
    """The (line, side) of each word on exclusive lines."""
    grammars: tuple[LanguageGrammar, ...]

    def grammar(self, words: Sequence[str]) -> LanguageGrammar:
        """The grammar of the language with the most small words in these; English if there are none."""
        return max(self.grammars, key=lambda grammar: sum(word in grammar.small for word in words))

    def capital_nouns(self, words: Iterable[str]) -> LanguageGrammar | None:
        """The grammar of the language of these words if they are clearly in one whose nouns have capitals. Fewer small
        words may be of another language, and are read as if their nouns had none."""
        said = frozenset(words)
        ranked = sorted(self.grammars, key=lambda grammar: len(said & grammar.recognised), reverse=True)
        first, second = ranked[:2]
        clear = len(said & first.recognised) - len(said & second.recognised) >= CLEARLY
        return first if clear and first.capital_nouns else None

    def veto(self, question: Sequence[str], key: Sequence[str], free: frozenset[int] = frozenset()) -> str | None:
        """The reason why a question and a key with these words cannot ask the same; None if nothing contradicts it.
        Lines in `free` are ignored."""
        return next((why for line, why in self._denials(question, key) if line not in free), None)

    def free(self, texts: Sequence[Sequence[str]]) -> frozenset[int]:
        """The lines on which texts that are known to ask the same contradict each other. What a question says on these
        lines does not matter."""
        return frozenset(line for one in texts for other in texts for line, _ in self._denials(one, other))

    def opposites(self, word: str) -> list[str]:
        """One word from each opposing side of a word's lines."""
        mine = self.sides.get(fold(word), frozenset())
        opposites: dict[tuple[int, int], str] = {}
        for other, sides in self.sides.items():
            for line, side in sides:
                if any(line == own_line and side != own_side for own_line, own_side in mine):
                    opposites.setdefault((line, side), other)
        return list(opposites.values())

    def _denials(self, question: Sequence[str], key: Sequence[str]) -> Iterator[tuple[int, str]]:
        """The (line, reason) of each exclusive line, and of numbers, on which these words contradict each other."""
        mine, theirs = self._by_line(question), self._by_line(key)
        for line in mine.keys() & theirs.keys():
            if mine[line].keys().isdisjoint(theirs[line].keys()):
                word, other = (next(iter(sides[line].values())) for sides in (mine, theirs))
                yield line, f"it says {word!r} where the edit says {other!r}"
        if why := _numbers(question, key):
            yield NUMBERS, why

    def _by_line(self, words: Iterable[str]) -> dict[int, dict[int, str]]:
        by_line: dict[int, dict[int, str]] = defaultdict(dict)
        for word in words:
            for line, side in self.sides.get(word, ()):
                by_line[line].setdefault(side, word)
        return by_line


def _numbers(question: Sequence[str], key: Sequence[str]) -> str | None:
    mine, theirs = (_figures(words) for words in (question, key))
    if mine and theirs and not (mine <= theirs or theirs <= mine):
        return f"its numbers ({', '.join(sorted(mine))}) are not those of the edit ({', '.join(sorted(theirs))})"
    return None


def parted_numbers(question: str, key: str) -> str | None:
    """The reason why two texts whose numbers have the same digits cannot ask the same: version 2.4 is not 4.2."""
    mine, theirs = ({number.replace(",", ".") for number in _PARTED.findall(text)} for text in (question, key))
    if mine & theirs:
        return None
    moved = [(a, b) for a in sorted(mine) for b in sorted(theirs) if sorted(a.split(".")) == sorted(b.split("."))]
    return next((f"it says {a} where the edit says {b}" for a, b in moved), None)


def _figures(words: Sequence[str]) -> set[str]:
    """The numbers in these words, without what is written together with them: 51mm, the 1920s, 12x32."""
    return {number for word in words if word[0].isdigit() for number in _NUMBER.findall(word)}


@lru_cache(maxsize=1)
def load_closed_words() -> ClosedWords:
    """Load the words that ship. On an `exclusive` line commas separate the sides, and blanks the words of a side."""
    plain: dict[str, set[str]] = {SMALL: set(), AUXILIARY: set(), PRONOUN: set(), JOINING: set()}
    sides: dict[str, set[tuple[int, int]]] = defaultdict(set)
    grammars: list[LanguageGrammar] = []
    line = 0
    for language in LANGUAGES:
        with (files("app.scope") / f"closed_{language}.tsv").open(encoding="utf-8") as file:
            rows = [(row["class"], row["words"]) for row in csv.DictReader(file, delimiter="\t")]
        for kind, words in rows:
            if kind in plain:
                plain[kind].update(plain_words(words))
            elif kind == EXCLUSIVE:
                line += 1
                for side, some in enumerate(words.split(",")):
                    for word in plain_words(some):
                        sides[word].add((line, side))
        grammars.append(_grammar(rows))
    return ClosedWords(
        small=frozenset(plain[SMALL] | plain[AUXILIARY] | plain[JOINING]),
        auxiliaries=frozenset(plain[AUXILIARY]),
        pronouns=frozenset(plain[PRONOUN]),
        joining=frozenset(plain[JOINING]),
        sides={word: frozenset(at) for word, at in sides.items()},
        grammars=tuple(grammars),
    )


def _words(rows: Sequence[tuple[str, str]], *kinds: str) -> frozenset[str]:
    return frozenset(word for kind, words in rows if kind in kinds for word in plain_words(words))


def _among(word: str, words: frozenset[str]) -> bool:
    """True if a word is among these; folding takes a plural ending from small words, too ("doe")."""
    return word in words or f"{word}s" in words


def _grammar(rows: Sequence[tuple[str, str]]) -> LanguageGrammar:
    by_section = dict(rows)
    begin, end = by_section[ROUTE].split(",")
    articles, qualifiers = by_section[QUALIFIED].split(":")
    return LanguageGrammar(
        small=_words(rows, SMALL, AUXILIARY, JOINING),
        auxiliaries=_words(rows, AUXILIARY),
        pronouns=_words(rows, PRONOUN),
        joining=_words(rows, JOINING),
        year=by_section[YEAR],
        route=(begin.strip(), end.strip()),
        articles=tuple(articles.split()),
        qualifiers=tuple(word.strip() for word in qualifiers.split(",")),
        variants={
            other: first
            for kind, words in rows
            if kind == VARIANT
            for first, *others in [plain_words(words)]
            for other in others
        },
        determiners=_words(rows, DETERMINER),
        capital_nouns=by_section.get(NOUNS) == "capital",
    )
