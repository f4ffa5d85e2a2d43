"""Runs fits between serving steps, one micro-step at a time and within their share of the engine's time. Knows no
editors."""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from app.domain.errors import ErrataError, RequestCancelled
from app.editors.base import FitProgress


@dataclass(eq=False, slots=True)
class RunningFit:
    """A fit in progress. `steps` yields the progress after each micro-step, which is passed to `on_progress`; `done`
    receives the result or the error."""

    steps: Generator[FitProgress, None, Any]
    done: Any
    on_progress: Callable[[FitProgress], None] = lambda _: None
    cancelled: bool = False


class FitBudget:
    """Limits the share of the engine's time that fits take while requests are served; a share of 1 sets no limit.

    A micro-step may run once fits have had less than their share; a long one is paid back before the next.
    """

    def __init__(self, share: float) -> None:
        self._rate = share / (1 - share) if share < 1 else float("inf")
        self._owed_s = 0.0

    @property
    def due(self) -> bool:
        return self._owed_s <= 0

    def served(self, seconds: float) -> None:
        """Credits serving time. Unused time does not accumulate, or fits would run in bursts."""
        self._owed_s = max(0.0, self._owed_s - seconds * self._rate) if self._rate < float("inf") else 0.0

    def fitted(self, seconds: float) -> None:
        self._owed_s += seconds


class Fits:
    """The fits in progress take turns, one micro-step each."""

    def __init__(self, share: float) -> None:
        self.budget = FitBudget(share)
        self._under_way: deque[RunningFit] = deque()

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def add(self, fitting: RunningFit) -> None:
        self._under_way.append(fitting)

    def step(self) -> bool:
        """Runs one micro-step of the next fit. -> whether the fit goes on; False if it ended or failed."""
        fitting = self._under_way[0]
        try:
            if fitting.cancelled:
                fitting.steps.close()
                raise RequestCancelled("The fit was cancelled.")
            fitting.on_progress(next(fitting.steps))
            self._under_way.rotate(-1)
            return True
        except StopIteration as stop:
            self._under_way.popleft()
            fitting.done(stop.value)
        except Exception as error:
            self._under_way.popleft()
            fitting.done(error)
        return False

    def end_all(self, error: ErrataError) -> None:
        while self._under_way:
            fitting = self._under_way.popleft()
            fitting.steps.close()
            fitting.done(error)
