"""Fits an evaluation into a time limit: when editing ends, and how much each figure asks. Knows no service and no
terminal.

The cost of a question is observed during the run; the number of questions still to ask is computed beforehand.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

SCALES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02)
SCORED = 0.2
"""Cost of scoring a continuation, which takes one pass, relative to a question, which is answered token by token."""
LEAST_SHARE = 0.05
"""Minimum share of the time for edits and questions: a model that uses up all of it while loading would yield no
figure."""
OVERRUN_SHARE = 0.05
"""Share of the time limit by which a run may exceed its prediction before it is cut off. With LEAST_SHARE, a run takes
at most a tenth more than its limit."""
FEW = 8
"""Number of questions that take about as long as one: a decode step of few rows is hardly slower than one of a single
row."""
ASKING = 0.6
"""Share of the time reserved for asking: edits are made until the rest is needed."""

T = TypeVar("T")
SoFar = Callable[[dict[str, Any]], None]
"""Callback that receives the figures so far."""


def no_one(_: dict[str, Any]) -> None:
    """Ignores the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionLimits:
    """Limits on what is asked."""

    edits: int = 1000
    """Number of edits asked again at each step; a sample if there are more."""
    paraphrases: int = 3
    untouched: int = 5
    """Number of prompts per case, as for `paraphrases`."""
    unrelated: int = 300
    texts: int = 50
    """Number of generic texts for perplexity."""
    modes: int = 200
    """Number of edits asked under sampling, under penalties and in slices, at the last step only."""
    overhead: int = 32
    """Number of unrelated prompts answered with and without edits in turn."""

    def scaled(self, scale: float, edits: int) -> "QuestionLimits":
        """This share of all limits, of at least one each, and of at most `edits` edits. Limits per case stay."""

        def some(most: int) -> int:
            return max(1, round(most * scale))

        return replace(
            self, edits=some(min(self.edits, edits)), unrelated=some(self.unrelated), texts=some(self.texts),
            modes=some(min(self.modes, edits)), overhead=some(self.overhead),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """Figures that are measured together: their cost in questions, and how they are measured."""

    name: str
    questions: Callable[[QuestionLimits], float]
    measure: Callable[[QuestionLimits], Any]
    """Limits -> an awaitable of the figures."""


class TimeLimit:
    """Time limit of one candidate. Without `seconds` there is none, and everything is asked."""

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._seconds, self._overrun_s = seconds, OVERRUN_SHARE * (seconds or 0.0)
        self._ends = None if seconds is None else clock() + seconds
        self._asked, self._took = 0.0, 0.0

    def begin(self) -> None:
        """Starts after loading: at least LEAST_SHARE of the time remains, however long loading took."""
        if self._ends is not None and self._seconds is not None:
            self._ends = max(self._ends, self.clock() + self._seconds * LEAST_SHARE)
            self._seconds = self.left

    @property
    def bounded(self) -> bool:
        return self._ends is not None

    @property
    def left(self) -> float:
        return float("inf") if self._ends is None else self._ends - self.clock()

    @property
    def end_s(self) -> float | None:
        """Seconds after the start at which the run is cut off, finished or not; None: never."""
        return None if self._seconds is None else self._seconds + self._overrun_s

    def note(self, questions: float, seconds: float) -> None:
        """Records how long a number of questions took."""
        self._asked += questions
        self._took += seconds

    @property
    def question_s(self) -> float:
        return self._took / self._asked if self._asked else 0.0

    def may_edit(self, edit_s: float, questions: float) -> bool:
        """True if another edit or batch of `edit_s` seconds leaves time for `questions`. Questions can be cut down, so
        they reserve at most the share ASKING of the time."""
        if self._seconds is None:
            return True
        return self.left - edit_s >= min(self._seconds * ASKING, self.question_s * questions)

    def fits(self, part: FigureGroup, whole: QuestionLimits, edits: int) -> bool:
        """True if there is time for the part at the smallest scale."""
        return self.left >= self.question_s * part.questions(whole.scaled(SCALES[-1], edits))

    def extent(self, parts: Sequence[FigureGroup], whole: QuestionLimits, edits: int) -> tuple[QuestionLimits, float]:
        """The limits at which all these parts fit into the time, and their scale."""
        for scale in SCALES if self.bounded else ():
            extent = whole.scaled(scale, edits)
            if self.question_s * sum(part.questions(extent) for part in parts) <= self.left:
                break
        else:
            return (whole.scaled(SCALES[-1], edits), SCALES[-1]) if self.bounded else (whole, 1.0)
        return (whole, 1.0) if scale == 1.0 else (extent, scale)


async def measured_in_time(
    time_limit: TimeLimit, parts: list[FigureGroup], whole: QuestionLimits, figures: dict[str, Any], on_figures: SoFar
) -> None:
    """Measures parts, in order, into `figures`, which must hold the number of edits. If time is short, `fitted` maps
    parts to the share of questions that they asked; `incomplete`, present until the end, lists parts not measured. The
    first part is always measured, since it yields `asked`."""
    figures["incomplete"] = [part.name for part in parts]
    left_out = list[str]()
    while parts:
        extent, share = time_limit.extent(parts, whole, figures["edits"])
        part = parts.pop(0)
        if "asked" in figures and not time_limit.fits(part, whole, figures["edits"]):
            left_out.append(part.name)
            continue
        began = time_limit.clock()
        measured = await part.measure(extent)
        time_limit.note(part.questions(extent), time_limit.clock() - began)
        figures |= measured
        figures["incomplete"] = left_out + [left.name for left in parts]
        if share < 1:
            figures.setdefault("fitted", {})[part.name] = share
        on_figures(figures)
    if not left_out:
        del figures["incomplete"]


def question_cost(*questions: float) -> float:
    """Cost of several calls, in questions."""
    return sum(max(FEW, each) for each in questions if each)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Evenly spread items from first to last, at most `most` of them."""
    count = min(most, len(items))
    return [items[at * len(items) // count] for at in range(count)]
