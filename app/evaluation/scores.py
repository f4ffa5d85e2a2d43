"""How an answer is scored: the whole text, never a prefix of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def normalised(text: str) -> str:
    """White space in runs, case and a closing full stop make no difference."""
    return " ".join(text.split()).casefold().rstrip(".")


def is_exact(answer: str, target: str) -> bool:
    """Whole-answer equality."""
    return normalised(answer) == normalised(target)


def contains(answer: str, target: str, old: str | None) -> bool:
    """The target stands in the answer, and the old answer does not, unless the target itself holds it."""
    said, wanted = normalised(answer), normalised(target)
    stale = normalised(old or "")
    return wanted in said and (not stale or stale in wanted or stale not in said)


@dataclass(slots=True)
class Tally:
    """`right` of `asked`."""

    right: int = 0
    asked: int = 0

    def add(self, right: bool) -> None:
        self.asked += 1
        self.right += right

    def as_json(self) -> dict[str, Any]:
        return {"share": self.right / self.asked if self.asked else None, "right": self.right, "asked": self.asked}


def tally(answers: Iterable[bool]) -> dict[str, Any]:
    """-> {share, right, asked}; the share of nothing is None."""
    counted = Tally()
    for right in answers:
        counted.add(right)
    return counted.as_json()
