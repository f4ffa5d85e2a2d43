"""The search for one edit's value: from the odds of its target tokens to the vectors that raise them.

This module computes no model. The loop runs the passes between two steps of a search.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

PATIENCE, MIN_GAIN = 32, 0.95
"""A fit whose answer is greedily right ends if the surprise at the least probable token has not fallen to the share
MIN_GAIN within PATIENCE passes. Some tokens, such as single bytes, never become probable, however long the fit runs."""
EPSILON = 1e-6
CHECK_COST = 0.5
"""The cost of a column in a pass where all odds hold, as a share of the cost with slopes to compute."""
USUAL_SHARE, USUAL_STEPS, LARGEST_SHARE = 0.5, 2, 0.98
"""An estimate of the remaining work expects a step to leave USUAL_SHARE of the short columns short. The expectation
weighs as much as USUAL_STEPS observed steps, and the share never exceeds LARGEST_SHARE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitParameters:
    """The hyperparameters of a fit. The unit of length is the norm of the residual stream at the site, at the end of an
    edit's prompts."""

    max_steps: int = 60
    probability: float = 0.99
    """The probability that every target token must reach in every context, greedily right, before the fit stops."""
    beyond: float = 2.5
    """The distance above the log odds of `probability` that a step aims at."""
    stride: float = 1.0
    """The greatest distance that one step moves a row of the value."""
    norm_cap: float = 6.0
    """The greatest norm of a row of the value."""
    ridge: float = 0.1
    """The share of the mean squared slope that is added to the system's diagonal, so that contexts which ask for nearly
    the same are met together and not one against another."""

    @property
    def odds(self) -> float:
        """The log odds that every target token must reach."""
        return math.log(self.probability / (1 - self.probability))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The learned value of one edit, (J, D) fp32 for J target tokens, and the course of the fit."""

    value: Tensor
    steps: int
    converged: bool
    probability: float
    """The least probability of a target token over all contexts."""


class ColumnOdds(NamedTuple):
    """The odds of some target tokens, the columns (C), in some contexts (R)."""

    odds: Tensor
    """(R, C) log odds."""
    greedy: Tensor
    """(R, C) bool: whether the token is the greedy choice."""
    slope: Tensor
    """(R, C, D) the gradient of the odds with respect to the added vector, where the odds fall short."""


class ValueSearch:
    """The search for one edit's value.

    Each step takes the log odds of every target token in every context as linear in the vector that is added at its
    position, and adds the smallest change that raises the odds that fall short to their goal. The next pass computes
    only the columns that fell short; the others stay as they are. A value that holds in those columns must finally
    hold in all columns at once.
    """

    def __init__(
        self, parameters: FitParameters, rows: Tensor, count: int, width: int, size: float, mix: Tensor | None
    ) -> None:
        self._parameters, self.rows, self._size, self._mix = parameters, rows, size, mix
        self._value = torch.zeros(count, width, device=rows.device)
        self._all_columns = self.columns = torch.arange(count, device=rows.device)
        self._passes, self._steps, self._best_odds, self._passes_since_gain = 0, 0, -math.inf, 0
        self._odds = torch.full((len(rows), count), -torch.inf, device=rows.device)
        self._short_columns = self._first_short_columns = 0
        self.cost = 0.0
        """The number of columns that passes have computed so far, those that all hold weighted by CHECK_COST."""
        self.fit: Fit | None = None
        """The result, once the search has ended."""

    def deltas(self) -> Tensor:
        """Return the vectors (R, C, D) to add in the edit's rows at the columns of the next pass."""
        if self._mix is None:
            return self._value[self.columns].expand(len(self.rows), -1, -1)
        return (self._mix @ self._value)[:, self.columns]

    def step(self, odds: ColumnOdds) -> None:
        """Learn from a pass over the current columns, and choose the columns of the next."""
        parameters = self._parameters
        self._passes += 1
        self._odds[:, self.columns] = odds.odds
        short = (odds.odds < parameters.odds) | ~odds.greedy
        self._short_columns = int(short.any(0).sum())
        self.cost += len(self.columns) * (1.0 if self._short_columns else CHECK_COST)
        self._first_short_columns = self._first_short_columns or self._short_columns
        least, correct = float(odds.odds.min()), bool(odds.greedy.all())
        if _surprise(least) < MIN_GAIN * _surprise(self._best_odds):
            self._best_odds, self._passes_since_gain = least, 0
        else:
            self._passes_since_gain += 1
        stalled = correct and self._passes_since_gain >= PATIENCE
        holds = stalled or not short.any()
        if self._passes > parameters.max_steps or (len(self.columns) == len(self._all_columns) and holds):
            probability = 1 / (1 + math.exp(-float(self._odds.min())))
            self.fit = Fit(value=self._value, steps=self._steps, converged=not short.any(), probability=probability)
        elif holds:
            self.columns = self._all_columns
        else:
            self._move(odds, short)
            if self._mix is None:  # With a mix, a row of the value acts in other columns too.
                self.columns = self.columns[short.any(0)]

    def remaining_cost(self) -> float:
        """Return an estimate of the cost that is left, if columns continue to become right as they did so far."""
        if self.fit is not None:
            return 0.0
        check = len(self._all_columns) * CHECK_COST
        if not self._short_columns:
            return check
        share_left = self._short_columns / self._first_short_columns * USUAL_SHARE**USUAL_STEPS
        share_a_step: float = min(LARGEST_SHARE, share_left ** (1 / (self._steps + USUAL_STEPS)))
        passes_left = max(0, self._parameters.max_steps - self._passes)
        if self._mix is not None:  # Every pass computes all columns.
            steps_left = math.log(2 * self._short_columns) / -math.log(share_a_step)
            return len(self._all_columns) * min(passes_left, steps_left) + check
        return min(passes_left * self._short_columns, self._short_columns / (1 - share_a_step)) + check

    def _move(self, odds: ColumnOdds, short: Tensor) -> None:
        """Add the smallest change of the value that brings the N odds that fall short to their goal."""
        parameters, count = self._parameters, len(self._all_columns)
        self._steps += 1
        mix = torch.eye(count, device=short.device).expand(len(short), -1, -1) if self._mix is None else self._mix
        mix = mix[:, self.columns][short].double()  # (N, J)
        missing = (parameters.odds + parameters.beyond - odds.odds)[short].double()  # (N,)
        slopes = odds.slope[short].double()  # (N, D)
        gram = (mix @ mix.T) * (slopes @ slopes.T)
        own = gram.diagonal()
        gram = gram + torch.diag(parameters.ridge * own.clamp(min=float(own.mean()) * EPSILON) + EPSILON)
        change = (mix.T * torch.linalg.solve(gram, missing)) @ slopes  # (J, D)
        value = self._value + _capped(change.float(), parameters.stride * self._size)
        self._value = _capped(value, parameters.norm_cap * self._size)


def _surprise(odds: float) -> float:
    """The surprise at a token with these log odds, in nats."""
    return math.log1p(math.exp(-odds)) if odds > -30 else -odds


def _capped(rows: Tensor, cap: float) -> Tensor:
    """Shorten the rows (N, D) whose norm exceeds the cap."""
    capped: Tensor = rows * (cap / rows.norm(dim=-1, keepdim=True).clamp(min=EPSILON)).clamp(max=1.0)
    return capped
