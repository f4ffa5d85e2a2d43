"""How much longer a job's work goes on, as far as can be told from what it took so far. Free of torch."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.editors.base import Progress  # imports torch: estimates do without


class Pace:
    """Of one job. What is done of a phase grows to 1; where it falls, something else has begun and is timed anew.

    Time counts from the first share that is done: what comes before it, such as a fit's pass over its contexts, comes
    once and says nothing about the steps. Between two shares the estimate counts down.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._done = 0.0
        self._began_s = self._told_s = clock()
        self._left_s: float | None = None

    def left_s(self, progress: "Progress | None") -> float | None:
        """Seconds; None while nothing is known."""
        now_s, done = self._clock(), 0.0 if progress is None else progress.done
        if done < self._done or not self._done:
            self._began_s, self._first, self._done, self._left_s = now_s, done, done, None
        elif done > self._done:
            self._done, self._told_s = done, now_s
            self._left_s = (now_s - self._began_s) * (1 - done) / (done - self._first)
        if self._left_s is None or progress is None or not progress.timed:
            return None
        return max(0.0, self._left_s - (now_s - self._told_s))
