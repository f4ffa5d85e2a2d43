"""Fits a run into a time limit: seconds per section and size of workloads. Plain Python: no model, no terminal.

A section runs at a scale: 1 is the whole workload, SCALES[-1] the smallest that is still meaningful. A first run at the
smallest scale shows how slow each contestant is; this server's speed, measured once, predicts how time grows with the
scale.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.bench.workload import PromptSpec

Clock = Callable[[], float]
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)
FEWER_ROUNDS_BELOW = 0.25
"""Above this scale, the scale is reduced before the rounds: a ratio of several rounds says more than one of longer
answers."""
MIN_ANSWER_TOKENS = 8
"""Minimum number of tokens of a shortened answer."""
LEAST_SHARE = 0.05
"""Minimum share of the time for measuring: a model that is slow to load would otherwise yield no figure. As much again
is left for stopping the server and drawing, so that a run takes its time and a tenth at most."""
OVERRUN = 1.25
"""Factor by which a section may exceed its seconds before it is ended."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of this server on this machine: seconds per prompt token, and per decode step of few and of many rows."""

    prompt_token_s: float
    few: tuple[int, float]
    many: tuple[int, float]
    """Like `few`: (rows, seconds per step)."""

    def step_s(self, rows: int) -> float:
        """Seconds per step, interpolated between both measured steps and never below the step of few rows."""
        (few, quick), (many, slow) = self.few, self.many
        return max(quick, quick + (slow - quick) * (rows - few) / (many - few))

    def seconds(self, specs: Sequence[PromptSpec], at_once: int | None) -> float:
        rows = min(at_once or len(specs), len(specs))
        prompts, answers = sum(len(spec.ids) for spec in specs), sum(spec.tokens for spec in specs)
        return prompts * self.prompt_token_s + answers / rows * self.step_s(rows)


def shrunk(specs: Sequence[PromptSpec], scale: float, at_once: int | None = None) -> list[PromptSpec]:
    """A smaller workload: shorter answers and fewer requests, but enough to keep `at_once` of them running; None: all
    run at once."""
    least = len(specs) if at_once is None else min(len(specs), at_once + at_once // 2)
    kept = specs[: max(least, round(len(specs) * scale))]
    return [replace(spec, tokens=max(min(spec.tokens, MIN_ANSWER_TOKENS), round(spec.tokens * scale))) for spec in kept]


@dataclass(frozen=True, slots=True)
class WorkloadFit:
    """A workload that fits the time. `warm`: a round at the same scale precedes the `rounds` that count. Zero rounds:
    there is only time for the first runs."""

    scale: float
    rounds: int
    warm: bool = False


def fitted(took_s: float, cost: Callable[[float], float], rounds: int, seconds: float) -> WorkloadFit:
    """The largest fit. `took_s`: seconds of all contestants at the smallest scale; `cost`: modelled seconds at a scale,
    of which only ratios count."""

    def round_s(scale: float) -> float:
        return took_s * max(1.0, cost(scale) / cost(SCALES[-1]))

    if round_s(1.0) * (rounds + 1) <= seconds:
        return WorkloadFit(1.0, rounds, warm=True)
    for fewer in range(rounds, 0, -1):
        scale = next((scale for scale in SCALES if round_s(scale) * fewer <= seconds), None)
        if scale is not None and (scale >= FEWER_ROUNDS_BELOW or fewer == 1):
            return WorkloadFit(scale, fewer)
    return WorkloadFit(SCALES[-1], 0)


class TimeBudget:
    """Time limits of a run, its sections and their parts. Without `seconds` there are none."""

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
        """Starts measuring after loading: at least LEAST_SHARE of the time remains, however long loading took."""
        if self._ends is not None:
            self._ends = max(self._ends, self.clock() + (self._ends - self._began) * LEAST_SHARE)

    @property
    def left(self) -> float:
        """Seconds until the end; infinite without one."""
        return float("inf") if self._ends is None else max(0.0, self._ends - self.clock())

    def passed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self._began

    @property
    def over(self) -> bool:
        return self._ends is not None and self.clock() >= self._ends

    def begin(self, name: str, weights: Mapping[str, float]) -> float | None:
        """Begins a section with its share, by `weights`, of the time left for it and later ones. -> seconds after which
        it must be ended; None: never."""
        if self._ends is None:
            return None
        now = self.clock()
        left = max(0.0, self._ends - now)
        share = left * weights[name] / sum(weights.values())
        self._section_ends = now + share
        return min(left, share * OVERRUN)

    def part(self, share: float = 1.0) -> float | None:
        """Seconds for a part of the section: a share of what the section has left. None: unlimited."""
        return None if self._section_ends is None else max(0.0, self._section_ends - self.clock()) * share
