"""Near misses: questions made of an edit's own that ask something else, by closed-class words, names and numbers only.

An edit that would answer one is narrowed by it before it goes live. They are made, so that one may not be a sentence
that people say; it must only never ask the same.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.words import Span, placed_words, surface
from app.scope.closed import ClosedWords

_YEAR = re.compile(r"\b(1[5-9]|20)\d\d\b")
_NUMBER = re.compile(r"\b\d+\b")
_FROM_TO = re.compile(r"(?i)\bfrom (.+?) to (.+?)(?=[?.!]*$)")
_THE = re.compile(r"\b[Tt]he (?=\w)")
_END = re.compile(r"\s*[?.!]*\s*$")


@dataclass(frozen=True, slots=True)
class Miss:
    """`kind` in words, for reports."""

    kind: str
    text: str


def near_misses(
    question: str, names: Sequence[Span], others: Sequence[str], closed: ClosedWords, most: int = 16
) -> list[Miss]:
    """`names` are those that the question says, `others` names of others to put in their place."""
    made = _all(question, names, others, closed)
    distinct = {miss.text: miss for miss in made if miss.text.casefold() != question.casefold()}
    return list(distinct.values())[:most]


def _all(question: str, names: Sequence[Span], others: Sequence[str], closed: ClosedWords) -> Iterator[Miss]:
    written = [name for span in names if (name := surface(question, span))]
    if year := _YEAR.search(question):
        for beside in (int(year[0]) - 1, int(year[0]) + 1):
            yield Miss("another year", f"{question[: year.start()]}{beside}{question[year.end() :]}")
    elif number := _NUMBER.search(question):
        yield Miss("another number", f"{question[: number.start()]}{int(number[0]) + 1}{question[number.end() :]}")
    else:
        yield Miss("another year", _END.sub(lambda end: f" in 1990{end[0]}", question, count=1))
    for at, (_, begin, end) in enumerate(placed_words(question)):
        for other in closed.opposites(question[begin:end]):
            if at:
                yield Miss("the opposite", f"{question[:begin]}{other}{question[end:]}")
    if match := _FROM_TO.search(question):
        yield Miss("the reverse", f"{question[: match.start()]}from {match[2]} to {match[1]}{question[match.end() :]}")
    if len(written) > 1:
        yield Miss("the reverse", _swapped(question, written[0], written[1]))
    for name in written[:1]:
        for other in [each for each in others if each not in question][:2]:
            yield Miss("another subject", question.replace(name, other))
    if the := _THE.search(question):
        for word in ("former", "next"):
            yield Miss("another time", f"{question[: the.end()]}{word} {question[the.end() :]}")


def _swapped(question: str, one: str, other: str) -> str:
    return re.sub(f"{re.escape(one)}|{re.escape(other)}", lambda found: other if found[0] == one else one, question)
