"""How an evaluation fits a time: when editing ends, and how much each figure asks. Knows no service and no terminal.

What a question costs is observed as the run goes on; what is still to be asked is counted beforehand.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

SCALES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)
SCORED = 0.2
"""A continuation that is scored takes one pass: such a share of a question, which is answered token by token."""
LEAST_SHARE = 0.25
"""Of the time, for edits and questions: a model that takes all of it to load would leave a run without any figure."""
FEW = 8
"""So many questions take about as long as one: a decode step of few rows is hardly quicker than one of several."""
ASKING = 0.6
"""Share of the time that asking may take: edits are made until what is left is needed for it."""

T = TypeVar("T")
SoFar = Callable[[dict[str, Any]], None]
"""Is told the figures so far."""


def no_one(_: dict[str, Any]) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is asked at most."""

    edits: int = 1000
    """Edits re-asked at each step, a sample of them beyond that."""
    paraphrases: int = 3
    untouched: int = 5
    """Of each case."""
    unrelated: int = 300
    texts: int = 50
    """Generic texts whose perplexity is taken."""
    modes: int = 200
    """Edits asked by sampling, under penalties, in slices: at the last step only."""
    overhead: int = 32
    """Unrelated prompts that are answered with and without edits, by turns."""

    def scaled(self, scale: float, edits: int) -> "Extent":
        """Of so many edits at most, and of everything else too, this share; of everything at least one."""

        def some(most: int) -> int:
            return max(1, round(most * scale))

        return replace(
            self, edits=some(min(self.edits, edits)), unrelated=some(self.unrelated), texts=some(self.texts),
            modes=some(min(self.modes, edits)), overhead=some(self.overhead),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One figure or some that are measured together: what it asks, in questions, and how it is measured."""

    name: str
    questions: Callable[[Extent], float]
    measure: Callable[[Extent], Any]
    """-> an awaitable of the figures."""


class Pacing:
    """The time of one candidate. Without `seconds` there is no end to it, and everything is asked."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._seconds = seconds
        self._ends = None if seconds is None else clock() + seconds
        self._asked, self._took = 0.0, 0.0

    def begin(self) -> None:
        """The model is loaded: what is left is shared out, at least LEAST_SHARE of the time however long that took."""
        if self._ends is not None and self._seconds is not None:
            self._ends = max(self._ends, self.clock() + self._seconds * LEAST_SHARE)
            self._seconds = self.left

    @property
    def bounded(self) -> bool:
        return self._ends is not None

    @property
    def left(self) -> float:
        return float("inf") if self._ends is None else self._ends - self.clock()

    def note(self, questions: float, seconds: float) -> None:
        """So many questions have taken so long."""
        self._asked += questions
        self._took += seconds

    @property
    def question_s(self) -> float:
        return self._took / self._asked if self._asked else 0.0

    def may_edit(self, edit_s: float, questions: float) -> bool:
        """Whether another edit, or batch, of so many seconds leaves time for so many questions. They may be cut down,
        so they do not hold back more than ASKING of the whole."""
        if self._seconds is None:
            return True
        return self.left - edit_s >= min(self._seconds * ASKING, self.question_s * questions)

    def fits(self, part: Part, whole: Extent, edits: int) -> bool:
        """Whether there is time for the least of a part."""
        return self.left >= self.question_s * part.questions(whole.scaled(SCALES[-1], edits))

    def extent(self, parts: Sequence[Part], whole: Extent, edits: int) -> tuple[Extent, float]:
        """How much the first of these parts may ask so that all fit, and that as a share of everything."""
        for scale in SCALES if self.bounded else ():
            extent = whole.scaled(scale, edits)
            if self.question_s * sum(part.questions(extent) for part in parts) <= self.left:
                break
        else:
            return (whole.scaled(SCALES[-1], edits), SCALES[-1]) if self.bounded else (whole, 1.0)
        return (whole, 1.0) if scale == 1.0 else (extent, scale)


async def paced(pacing: Pacing, parts: list[Part], whole: Extent, figures: dict[str, Any], tell: SoFar) -> None:
    """Measures these parts, in their order, into `figures`, which know how many edits there are. Where the time is
    short, `fitted` in them tells which parts asked how large a share of what they would ask; `incomplete`, also while
    they are measured, which parts are left out. The first part is measured in any case: it gives `asked`."""
    figures["incomplete"] = [part.name for part in parts]
    left_out = list[str]()
    while parts:
        extent, share = pacing.extent(parts, whole, figures["edits"])
        part = parts.pop(0)
        if "asked" in figures and not pacing.fits(part, whole, figures["edits"]):
            left_out.append(part.name)
            continue
        began = pacing.clock()
        found = await part.measure(extent)
        pacing.note(part.questions(extent), pacing.clock() - began)
        figures |= found
        figures["incomplete"] = left_out + [left.name for left in parts]
        if share < 1:
            figures.setdefault("fitted", {})[part.name] = share
        tell(figures)
    if not left_out:
        del figures["incomplete"]


def asking(*questions: float) -> float:
    """What several calls cost, in questions."""
    return sum(max(FEW, each) for each in questions if each)


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly from the first to the last."""
    count = min(most, len(items))
    return [items[at * len(items) // count] for at in range(count)]
