"""Near misses: questions generated from an edit's own that ask something else; they change only closed-class words,
names and numbers.

An edit that would answer one is narrowed by it before it goes live. They are made, so that one may not be a sentence
that people say; it must only never ask the same. The words that they are made with are in the closed-class files.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.words import Span, placed_words, plain_words, surface
from app.scope.closed_words import ClosedWords, LanguageGrammar

LONG_AGO = 1990
"""The year about which a question without a number is asked."""
_YEAR = re.compile(r"\b(1[5-9]|20)\d\d\b")
_NUMBER = re.compile(r"\b\d{1,9}\b")
LONGEST = 300
"""The longest question, in characters, from which near misses are generated: a longer text takes too long to search."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A near miss; `kind` describes it in words, for reports."""

    kind: str
    text: str


def near_misses(
    question: str, names: Sequence[Span], others: Sequence[str], closed: ClosedWords, most: int = 16
) -> list[NearMiss]:
    """The near misses of a question. `names` are the names in it, and `others` are names to replace them with."""
    misses = _all(question, names, others, closed) if len(question) <= LONGEST else iter(())
    distinct = {miss.text: miss for miss in misses if miss.text.casefold() != question.casefold()}
    return list(distinct.values())[:most]


def year_in(text: str) -> int | None:
    """The first year that a text names."""
    year = _YEAR.search(text)
    return int(year[0]) if year else None


def of_year(question: str, year: int, closed: ClosedWords) -> str:
    """The question, which names no year, about a year."""
    return _in_year(question, year, closed.grammar(plain_words(question)))


def _all(question: str, names: Sequence[Span], others: Sequence[str], closed: ClosedWords) -> Iterator[NearMiss]:
    grammar = closed.grammar(plain_words(question))
    yield from _numbers(question, grammar)
    for at, (_, begin, end) in enumerate(placed_words(question)):
        if at:  # the first word often opens the question and says nothing else
            for other in closed.opposites(question[begin:end]):
                yield NearMiss("the opposite", f"{question[:begin]}{other}{question[end:]}")
    written = [name for span in names if (name := surface(question, span))]
    yield from _reversed(question, written, grammar)
    for name in written[:1]:
        for other in [each for each in others if each not in question][:2]:
            yield NearMiss("another subject", question.replace(name, other))
    article = re.search(rf"(?i)\b(?:{'|'.join(map(re.escape, grammar.articles))}) (?=\w)", question)
    if article:
        for word in grammar.qualifiers:
            yield NearMiss("another time", f"{question[: article.end()]}{word} {question[article.end() :]}")


def _numbers(question: str, grammar: LanguageGrammar) -> Iterator[NearMiss]:
    """The question with another year or number; if it has none, the question about a year long ago."""
    if year := _YEAR.search(question):
        for near_year in (int(year[0]) - 1, int(year[0]) + 1):
            yield NearMiss("another year", f"{question[: year.start()]}{near_year}{question[year.end() :]}")
    elif number := _NUMBER.search(question):
        yield NearMiss("another number", f"{question[: number.start()]}{int(number[0]) + 1}{question[number.end() :]}")
    else:
        yield NearMiss("another year", _in_year(question, LONG_AGO, grammar))


def _in_year(question: str, year: int, grammar: LanguageGrammar) -> str:
    end = question.rfind("?")  # "Question: ...? Answer:" goes on behind it
    body = question[:end].rstrip() if end > 0 else question.rstrip(" ?.!")
    return f"{body} {grammar.year} {year}{question[len(body) :]}"


def _reversed(question: str, written: Sequence[str], grammar: LanguageGrammar) -> Iterator[NearMiss]:
    """The question with its direction reversed, and with its first two names swapped, neither of which says the
    other."""
    begin, end = map(re.escape, grammar.route)
    if way := re.search(rf"(?i)\b({begin}) (.+?) ({end}) (.+?)(?=\s*[?.!]*$|\s*\?)", question):
        back = f"{way[1]} {way[4]} {way[3]} {way[2]}"
        yield NearMiss("the reverse", f"{question[: way.start()]}{back}{question[way.end() :]}")
    apart = (name for name in written[1:] if name not in written[0] and written[0] not in name)
    if other := next(apart, None):
        yield NearMiss("the reverse", _swapped(question, written[0], other))


def _swapped(question: str, one: str, other: str) -> str:
    return re.sub(f"{re.escape(one)}|{re.escape(other)}", lambda match: other if match[0] == one else one, question)
