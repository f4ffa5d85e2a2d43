"""How much longer a job's work goes on, as far as can be told from what it took so far. Free of torch."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.editors.base import Progress  # imports torch: estimates do without


class Pace:
    """Of one job. What is done of a phase grows to 1; where it falls something else has begun, and is timed anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._first = self._done = 0.0

    def left_s(self, progress: "Progress | None") -> float | None:
        """Seconds; None while nothing is known."""
        now_s, done = self._clock(), 0.0 if progress is None else progress.done
        if progress is None or done < self._done:
            self._began_s, self._first, self._done = now_s, done, done
            return None
        self._done = done
        gained = done - self._first
        return None if gained <= 0 else (now_s - self._began_s) * (1 - done) / gained
