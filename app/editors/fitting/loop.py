"""The one fitting loop: residual deltas at a site, one a generated position, learned through the layers above it.

Knows nothing of scopes, codebooks or requests under way. A vector at the prompt's last
token alone cannot carry a long answer, and without end-of-text as the last target free generation runs on, so an edit's
value is a matrix: row j is added where target token j is predicted, the last row where end-of-text is.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from app.editors.base import FitRequest, Fitted, Progress
from app.editors.fitting.suffix import Tail
from app.editors.fitting.view import FitView, adding

CHECKING = 0.5
"""What a look at columns that all hold costs beside one that has slopes to compute."""
USUAL_FALL, USUAL_STEPS, SLOWEST_FALL = 0.5, 2, 0.98
"""A step leaves about so many of the tokens short that fell short before it; this is believed like so many steps."""
PATIENCE, GAIN = 32, 0.95
"""An answer that is greedily right stays as it is when the surprise at its least probable token has not fallen to this
share in so many steps: of what a model has never said (single bytes) it cannot be made sure, however long one fits."""
EPSILON = 1e-6
AT_ONCE = 16
"""Edits whose contexts share a forward pass of a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitParameters:
    """Lengths are in units of the norm of the residual stream at the end of an edit's prompts, at the site."""

    max_steps: int = 60
    probability: float = 0.99
    """Every target token must reach it, greedily right, in every context, before a fit stops."""
    beyond: float = 2.5
    """A step aims at log odds that are so much above those of `probability`."""
    stride: float = 1.0
    """A step moves a row of the value no farther than this."""
    norm_cap: float = 6.0
    """The norm of a row of the value at most."""
    ridge: float = 0.1
    """Of the mean squared slope: contexts that ask for nearly the same are met together, not one against another."""

    @property
    def odds(self) -> float:
        """Log odds that every target token must reach."""
        return math.log(self.probability / (1 - self.probability))


def by_parts(
    requests: Sequence[FitRequest],
    fit_some: Callable[[Sequence[FitRequest]], Generator[Progress, None, list[Fitted]]],
) -> Generator[Progress, None, list[Fitted]]:
    """Fits AT_ONCE edits at a time, where each is independent of the others: logits of more would not fit memory.

    Targets of like length go together: a part computes as many positions of each as its longest has.
    """
    order = sorted(range(len(requests)), key=lambda at: (len(requests[at].target_ids), len(requests[at].contexts[0])))
    fitted: dict[int, Fitted] = {}
    tokens = sum(len(request.target_ids) for request in requests)
    before = 0
    for first in range(0, len(requests), AT_ONCE):
        part = order[first : first + AT_ONCE]
        mine = sum(len(requests[at].target_ids) for at in part)
        some = yield from _as_part(fit_some([requests[at] for at in part]), before, mine, tokens)
        fitted.update(zip(part, some, strict=True))
        before += mine
    return [fitted[at] for at in range(len(requests))]


def _as_part(
    steps: Generator[Progress, None, list[Fitted]], before: int, mine: int, whole: int
) -> Generator[Progress, None, list[Fitted]]:
    fitted: list[Fitted] = []

    def kept() -> Generator[Progress, None, None]:
        fitted.extend((yield from steps))

    for progress in kept():
        yield progress.within(before, mine, whole)
    return fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One edit's learned value (J, D) fp32, J target tokens, and how it went."""

    value: Tensor
    steps: int
    converged: bool
    probability: float
    """The least probability of a target token, over all contexts."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Contexts of all edits as right-padded rows; pads come after all that is read, so the causal mask suffices."""

    ids: Tensor  # (R, T)
    owner: Tensor  # (R,) which edit a row belongs to
    position: Tensor  # (R, J) where target token j is predicted
    target: Tensor  # (R, J)
    real: Tensor  # (R, J) bool

    def only(self, rows: Tensor) -> "Contexts":
        """Some of the rows, (R,) bool; owners are called as before."""
        return Contexts(*(each[rows] for each in (self.ids, self.owner, self.position, self.target, self.real)))


def collate(contexts: Sequence[Sequence[Sequence[int]]], targets: Sequence[Sequence[int]], device: Any) -> Contexts:
    rows = [(edit, prompt, targets[edit]) for edit, prompts in enumerate(contexts) for prompt in prompts]
    length = max(len(prompt) + len(target) - 1 for _, prompt, target in rows)
    width = max(len(target) for _, _, target in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    position = torch.zeros(len(rows), width, dtype=torch.long)
    target_ids = torch.zeros(len(rows), width, dtype=torch.long)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (_, prompt, target) in enumerate(rows):
        fed = [*prompt, *target[:-1]]
        ids[row, : len(fed)] = torch.tensor(fed)
        position[row, : len(target)] = torch.arange(len(prompt) - 1, len(fed))
        target_ids[row, : len(target)] = torch.tensor(target)
        real[row, : len(target)] = True
    owner = torch.tensor([edit for edit, _, _ in rows])
    return Contexts(*(t.to(device) for t in (ids, owner, position, target_ids, real)))


class Look(NamedTuple):
    """What contexts (R) give of some of a target's tokens (C)."""

    odds: Tensor
    """(R, C) log odds."""
    first: Tensor
    """(R, C) bool: greedily right."""
    slope: Tensor
    """(R, C, D): how the odds change with what is added, where they fall short."""


class Value:
    """One edit's value while it is learned.

    Every step takes the log odds of each target token in each context as linear in what is added at its position, and
    adds the least that brings those that fall short to what is wanted. The next look is at their columns alone, beside
    the others as they stood; a value that holds in all of these has yet to hold in all columns at once.
    """

    def __init__(
        self, how: FitParameters, rows: Tensor, count: int, width: int, size: float, mix: Tensor | None
    ) -> None:
        self._how, self.rows, self._size, self._mix = how, rows, size, mix
        self._value = torch.zeros(count, width, device=rows.device)
        self._all = self.columns = torch.arange(count, device=rows.device)
        self._looks, self._steps, self._best, self._since = 0, 0, -math.inf, 0
        self._short = self._first_short = 0
        self.looked = 0.0
        """Columns that were looked at, those that are checked by their cost."""
        self._odds = torch.full((len(rows), count), -torch.inf, device=rows.device)
        self.fit: Fit | None = None

    def deltas(self) -> Tensor:
        """(R, C, D): what is added in its rows, at the columns that are to be looked at."""
        if self._mix is None:
            return self._value[self.columns].expand(len(self.rows), -1, -1)
        return (self._mix @ self._value)[:, self.columns]

    def step(self, look: Look) -> None:
        """Learn from what its columns give."""
        self._looks += 1
        self._odds[:, self.columns] = look.odds
        short = (look.odds < self._how.odds) | ~look.first
        self._short = int(short.any(0).sum())
        self.looked += len(self.columns) * (1.0 if self._short else CHECKING)
        self._first_short = self._first_short or self._short
        least, right = float(look.odds.min()), bool(look.first.all())
        gained = _surprise(least) < GAIN * _surprise(self._best)
        self._best, self._since = (least, 0) if gained else (self._best, self._since + 1)
        stays = right and self._since >= PATIENCE
        if self._looks > self._how.max_steps or (len(self.columns) == len(self._all) and (stays or not short.any())):
            chance = 1 / (1 + math.exp(-float(self._odds.min())))
            self.fit = Fit(value=self._value, steps=self._steps, converged=not short.any(), probability=chance)
        elif stays or not short.any():
            self.columns = self._all
        else:
            self._move(look, short)
            if self._mix is None:  # else what is learned of one column acts in others
                self.columns = self.columns[short.any(0)]

    def left(self) -> float:
        """Columns that are yet to be looked at, if tokens go on to fall short no more as they did so far."""
        if self.fit is not None:
            return 0.0
        check = len(self._all) * CHECKING
        if not self._short:
            return check
        fallen = self._short / self._first_short * USUAL_FALL**USUAL_STEPS
        fall: float = min(SLOWEST_FALL, fallen ** (1 / (self._steps + USUAL_STEPS)))
        most = max(0, self._how.max_steps - self._looks)
        if self._mix is not None:  # all columns are looked at each time
            return len(self._all) * min(most, math.log(2 * self._short) / -math.log(fall)) + check
        return min(most * self._short, self._short / (1 - fall)) + check

    def _move(self, look: Look, short: Tensor) -> None:
        self._steps += 1
        count = len(self._all)
        mix = torch.eye(count, device=short.device).expand(len(short), -1, -1) if self._mix is None else self._mix
        mix = mix[:, self.columns][short].double()  # (N, J)
        wanted = (self._how.odds + self._how.beyond - look.odds)[short].double()  # (N,)
        slopes = look.slope[short].double()  # (N, D)
        gram = (mix @ mix.T) * (slopes @ slopes.T)
        own = gram.diagonal()
        gram = gram + torch.diag(self._how.ridge * own.clamp(min=float(own.mean()) * EPSILON) + EPSILON)
        change = (mix.T * torch.linalg.solve(gram, wanted)) @ slopes  # (J, D)
        value = self._value + _within(change.float(), self._how.stride * self._size)
        self._value = _within(value, self._how.norm_cap * self._size)


def fit_deltas(
    view: FitView,
    contexts: Sequence[Sequence[Sequence[int]]],
    targets: Sequence[Sequence[int]],
    parameters: FitParameters,
    mix: Tensor | None = None,
) -> Generator[Progress, None, list[Fit]]:
    """Learn one value a target: `contexts[e]` are prompts (ids) that shall be continued by `targets[e]` (ids).

    `mix` (R, J, J), if given, says how much of each row of the value arrives at each of a context's positions; without
    it row j arrives at position j. Edits share passes and nothing else, so fitting a batch is fitting each alone.
    """
    batch = collate(contexts, targets, view.device)
    told = Progress(step=0, steps=parameters.max_steps, loss=float("nan"))
    tails: list[Tail] = []
    for part in view.tails(batch.ids, batch.position):
        tails.append(part)
        yield told
    tail = Tail.joined(tails)
    del tails
    values: list[Value] = []
    for edit, target in enumerate(targets):
        rows, count = torch.nonzero(batch.owner == edit)[:, 0], len(target)
        size = float(tail.hidden[rows, 0].float().norm(dim=-1).mean())  # of the residual stream at the prompt's end
        mine = None if mix is None else mix[rows, :count, :count]
        values.append(Value(parameters, rows, count, tail.hidden.shape[-1], size, mine))
    step = 0
    while going := [value for value in values if value.fit is None]:
        wide = max(len(value.columns) for value in going)
        rows = torch.cat([value.rows for value in going])
        columns = torch.cat([_padded(value.columns, wide, batch).expand(len(value.rows), -1) for value in going])
        deltas = torch.cat([F.pad(d := value.deltas(), (0, 0, 0, wide - d.shape[1])) for value in going])
        looks: list[Look] = []
        at_once = view.rows_at_once(wide)
        for start in range(0, len(rows), at_once):
            some = slice(start, start + at_once)
            looks.append(_look(view, batch, tail, parameters, rows[some], columns[some], deltas[some]))
            yield told
        found = Look(*(torch.cat(each) for each in zip(*looks, strict=True)))
        start = 0
        for value in going:
            own = slice(start, start + len(value.rows)), slice(len(value.columns))
            start += len(value.rows)
            value.step(Look(*(each[own] for each in found)))
        done = sum(len(value.rows) * value.looked for value in values)
        left = sum(len(value.rows) * value.left() for value in values)
        loss = float(F.softplus(-found.odds).mean())
        told = Progress(step=step, steps=parameters.max_steps, loss=loss, share=done / (done + left))
        step += 1
    return [value.fit for value in values if value.fit is not None]


def _padded(columns: Tensor, wide: int, batch: Contexts) -> Tensor:
    return F.pad(columns, (0, wide - len(columns)), value=batch.position.shape[1])


def _look(
    view: FitView, batch: Contexts, tail: Tail, how: FitParameters, rows: Tensor, columns: Tensor, delta: Tensor
) -> Look:
    """What rows (N,) of the batch give at columns (N, C) with what is added there; slopes only of what falls short."""
    real = columns < batch.position.shape[1]
    target = batch.target[rows[:, None], columns.clamp(max=batch.position.shape[1] - 1)]
    with torch.enable_grad():
        delta.requires_grad_()
        states = view.tail_states(tail, rows, columns, {view.site: adding(delta)})  # (N, C, D)
    found = view.telling(states.detach().flatten(0, 1), target.flatten())
    odds = found.odds.view_as(target).masked_fill(~real, torch.inf)
    first = found.first.view_as(target) | ~real
    short = (odds < how.odds) | ~first
    slope = torch.zeros_like(delta)
    if short.any():
        wanted = found.slope.view_as(delta) * short[..., None]
        (slope,) = torch.autograd.grad(states, delta, wanted.to(states.dtype))
    return Look(odds, first, slope)


def _surprise(odds: float) -> float:
    """At a token of these log odds, in nats."""
    return math.log1p(math.exp(-odds)) if odds > -30 else -odds


def _within(rows: Tensor, most: float) -> Tensor:
    within: Tensor = rows * (most / rows.norm(dim=-1, keepdim=True).clamp(min=EPSILON)).clamp(max=1.0)
    return within


def stalled(least: Tensor, surest: Tensor, since: Tensor) -> tuple[Tensor, Tensor]:
    """The least probability of each edit's tokens (E,), the best so far, and how many looks ago it gained."""
    gained = least.log() > GAIN * surest.log()
    return torch.where(gained, least, surest), torch.where(gained, 0.0, since + 1)
