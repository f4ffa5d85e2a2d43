"""An estimate of the remaining time of a job, from the time that it has taken so far. Does not import torch."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.editors.base import FitProgress  # imports torch, which estimates do without


class TimeEstimate:
    """The pace of one job. The completed share of a phase grows to 1; if it falls, a new phase has begun and is timed
    from there.

    Time counts from the first completed share: what precedes it, such as a fit's pass over its contexts, happens once
    and says nothing about the steps. Between two shares the estimate counts down.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._done = 0.0
        self._began_s = self._told_s = clock()
        self._left_s: float | None = None

    def left_s(self, progress: "FitProgress | None") -> float | None:
        """The remaining time in seconds; None while it is unknown."""
        now_s, done = self._clock(), 0.0 if progress is None else progress.done
        if done < self._done or not self._done:
            self._began_s, self._first, self._done, self._left_s = now_s, done, done, None
        elif done > self._done:
            self._done, self._told_s = done, now_s
            self._left_s = (now_s - self._began_s) * (1 - done) / (done - self._first)
        if self._left_s is None or progress is None or not progress.timed:
            return None
        return max(0.0, self._left_s - (now_s - self._told_s))
