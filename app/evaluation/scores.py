"""Scores an answer: the whole text, never a prefix of it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_WORD = r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
"""A letter or digit of a script that separates words by spaces: not Thai, Lao, Burmese, Khmer, Japanese or Chinese."""


def normalised(text: str) -> str:
    """Ignores runs of white space, case and a final full stop."""
    return " ".join(text.split()).casefold().rstrip(".")


def is_exact(answer: str, target: str) -> bool:
    """Equality of whole answers; an empty answer is never right."""
    said = normalised(answer)
    return bool(said) and said == normalised(target)


def contains(answer: str, target: str, old: str | None) -> bool:
    """True if the answer contains the target in whole words and, unless the target itself does, not the old answer."""
    said, wanted = normalised(answer), normalised(target)
    stale = normalised(old or "")
    return _occurs_in(said, wanted) and (_occurs_in(wanted, stale) or not _occurs_in(said, stale))


def _occurs_in(text: str, words: str) -> bool:
    """True if the words occur outside longer words and numbers: no 4 in 1945, no 3 in 3.14. Scripts without spaces have
    no such borders."""
    if not words:
        return False
    begin = rf"(?<!{_WORD})(?<!\d[.,])" if re.match(_WORD, words[0]) else ""
    end = rf"(?!{_WORD}|[.,]\d)" if re.match(_WORD, words[-1]) else ""
    return re.search(f"{begin}{re.escape(words)}{end}", text) is not None


@dataclass(slots=True)
class Tally:
    """Count of right answers among those asked."""

    right: int = 0
    asked: int = 0

    def add(self, right: bool) -> None:
        self.asked += 1
        self.right += right

    def as_json(self) -> dict[str, Any]:
        return {"share": self.right / self.asked if self.asked else None, "right": self.right, "asked": self.asked}


def tally(answers: Iterable[bool]) -> dict[str, Any]:
    """-> {share, right, asked}; the share is None if nothing was asked."""
    counted = Tally()
    for right in answers:
        counted.add(right)
    return counted.as_json()
