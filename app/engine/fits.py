"""Fits beside serving: a micro-step at a time, no more than their share of the engine's time. Knows no editors."""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from app.domain.errors import ErrataError, RequestCancelled
from app.editors.base import Progress


@dataclass(eq=False, slots=True)
class Fitting:
    """A fit under way: `steps` yields at each micro-step, which `tell` is told of; `done` takes the result or error."""

    steps: Generator[Progress, None, Any]
    done: Any
    tell: Callable[[Progress], None] = lambda _: None
    cancelled: bool = False


class FitBudget:
    """How much of the engine's time fits may take while requests are served, from 0 to 1, 1 for all that they want.

    A micro-step goes when fits have had less than their share; a long one is paid back by the steps that follow.
    """

    def __init__(self, share: float) -> None:
        self._rate = share / (1 - share) if share < 1 else float("inf")
        self._owed_s = 0.0

    @property
    def due(self) -> bool:
        return self._owed_s <= 0

    def served(self, seconds: float) -> None:
        """What was not taken is not saved up: fits would come in a burst."""
        self._owed_s = max(0.0, self._owed_s - seconds * self._rate) if self._rate < float("inf") else 0.0

    def fitted(self, seconds: float) -> None:
        self._owed_s += seconds


class Fits:
    """Those under way take turns, a micro-step each."""

    def __init__(self, share: float) -> None:
        self.budget = FitBudget(share)
        self._under_way: deque[Fitting] = deque()

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def add(self, fitting: Fitting) -> None:
        self._under_way.append(fitting)

    def step(self) -> bool:
        """One micro-step of the next fit; whether it did one, and neither ended nor failed."""
        fitting = self._under_way[0]
        try:
            if fitting.cancelled:
                fitting.steps.close()
                raise RequestCancelled("The fit was cancelled.")
            fitting.tell(next(fitting.steps))
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
