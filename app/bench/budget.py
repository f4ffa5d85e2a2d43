"""How a run fits a time: seconds by section, and how large a workload may be. Plain Python: no model, no terminal.

A section does its work at a scale: 1 is the whole workload, SCALES[-1] the least that still says something. A first run
at the smallest scale tells how slow each contestant is; the speed of this server, measured once, tells how the time
grows with the scale.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.bench.workload import Ask

Clock = Callable[[], float]
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)
FEWER_ROUNDS_BELOW = 0.25
"""Rounds are kept down to this scale: a ratio of several rounds says more than one of longer answers."""
LEAST_TOKENS = 8
"""The least tokens of an answer, unless it was shorter from the start."""
LEAST_SHARE = 0.25
"""Measuring gets this share of the time at least, or a model that is slow to load would leave no figure at all."""
OVERRUN = 1.25
"""A section may take so many times its seconds before it is ended."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of this server here: seconds per prompt token, and per decode step of few and of many rows."""

    prompt_token_s: float
    few: tuple[int, float]
    many: tuple[int, float]
    """(rows, seconds a step)."""

    def step_s(self, rows: int) -> float:
        """On the line through both measured steps, and never faster than the step of few rows."""
        (few, quick), (many, slow) = self.few, self.many
        return max(quick, quick + (slow - quick) * (rows - few) / (many - few))

    def seconds(self, asked: Sequence[Ask], at_once: int | None) -> float:
        rows = min(at_once or len(asked), len(asked))
        prompts, answers = sum(len(ask.ids) for ask in asked), sum(ask.tokens for ask in asked)
        return prompts * self.prompt_token_s + answers / rows * self.step_s(rows)


def shrunk(asked: Sequence[Ask], scale: float, at_once: int | None = None) -> list[Ask]:
    """Shorter answers and fewer requests, but so many that `at_once` of them are under way; None: all at once."""
    least = len(asked) if at_once is None else min(len(asked), at_once + at_once // 2)
    kept = asked[: max(least, round(len(asked) * scale))]
    return [replace(ask, tokens=max(min(ask.tokens, LEAST_TOKENS), round(ask.tokens * scale))) for ask in kept]


@dataclass(frozen=True, slots=True)
class Fit:
    """A workload that fits the time. `warm` says that a round of the same scale comes before the `rounds` that count.
    Without rounds there is time for the first runs alone."""

    scale: float
    rounds: int
    warm: bool = False


def fitted(took_s: float, cost: Callable[[float], float], rounds: int, seconds: float) -> Fit:
    """`took_s`: all contestants at the smallest scale; `cost`: modelled seconds at a scale; only their ratios count."""

    def round_s(scale: float) -> float:
        return took_s * max(1.0, cost(scale) / cost(SCALES[-1]))

    if round_s(1.0) * (rounds + 1) <= seconds:
        return Fit(1.0, rounds, warm=True)
    for fewer in range(rounds, 0, -1):
        scale = next((scale for scale in SCALES if round_s(scale) * fewer <= seconds), None)
        if scale is not None and (scale >= FEWER_ROUNDS_BELOW or fewer == 1):
            return Fit(scale, fewer)
    return Fit(SCALES[-1], 0)


class Pace:
    """The time of a run, of its sections and of their parts. Without `seconds` there is no end to it."""

    def __init__(self, seconds: float | None = None, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.speed: Speed | None = None
        self._began = clock()
        self._ends = None if seconds is None else clock() + seconds
        self._section_ends: float | None = None

    @property
    def bounded(self) -> bool:
        return self._ends is not None

    def loaded(self) -> None:
        """The servers stand now. However long that took, LEAST_SHARE of the time is left for it."""
        if self._ends is not None:
            self._ends = max(self._ends, self.clock() + (self._ends - self._began) * LEAST_SHARE)

    def passed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self._began

    @property
    def over(self) -> bool:
        return self._ends is not None and self.clock() >= self._ends

    def begin(self, name: str, weights: Mapping[str, float]) -> float | None:
        """A section begins, with its share of what is left for it and those after it, by `weights`. -> the seconds
        after which it must be ended; None: never."""
        if self._ends is None:
            return None
        now = self.clock()
        left = max(0.0, self._ends - now)
        share = left * weights[name] / sum(weights.values())
        self._section_ends = now + share
        return min(left, share * OVERRUN)

    def part(self, share: float = 1.0) -> float | None:
        """Seconds of a part of the section: a share of what is left of it. None: as many as it wants."""
        return None if self._section_ends is None else max(0.0, self._section_ends - self.clock()) * share
