"""The one fitting loop: residual deltas at a site, one a generated position, learned through the layers above it.

Knows nothing of scopes, codebooks or requests under way. A vector at the prompt's last
token alone cannot carry a long answer, and without end-of-text as the last target free generation runs on, so an edit's
value is a matrix: row j is added where target token j is predicted, the last row where end-of-text is.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from app.editors.base import FitRequest, Fitted, Progress
from app.editors.fit_view import FitView, adding
from app.editors.tail import Tail

PATIENCE, GAIN = 32, 0.95
"""An answer that is greedily right stays as it is when the surprise at its least probable token has not fallen to this
share in so many steps: of what a model has never said (single bytes) it cannot be made sure, however long one fits."""
AT_ONCE = 16
"""Edits whose contexts share a forward pass of a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitParameters:
    """`learning_rate` and `norm_cap` are in units of the residual stream's RMS and norm at the site."""

    learning_rate: float = 0.3
    max_steps: int = 200
    """Most edits stop after some five; what the model has hardly ever seen (27 bytes of Japanese) takes all of them."""
    probability: float = 0.99
    """Every target token must reach it, greedily right, in every context, before a row stops."""
    norm_cap: float = 6.0
    weight_decay: float = 1e-3


def by_parts(
    requests: Sequence[FitRequest],
    fit_some: Callable[[Sequence[FitRequest]], Generator[Progress, None, list[Fitted]]],
) -> Generator[Progress, None, list[Fitted]]:
    """Fits AT_ONCE edits at a time, where each is independent of the others: logits of more would not fit memory.

    Targets of like length go together: a part computes as many positions of each as its longest has.
    """
    order = sorted(range(len(requests)), key=lambda at: (len(requests[at].target_ids), len(requests[at].contexts[0])))
    fitted: dict[int, Fitted] = {}
    for first in range(0, len(requests), AT_ONCE):
        part = order[first : first + AT_ONCE]
        some = yield from fit_some([requests[at] for at in part])
        fitted.update(zip(part, some, strict=True))
    return [fitted[at] for at in range(len(requests))]


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


def fit_deltas(
    view: FitView,
    contexts: Sequence[Sequence[Sequence[int]]],
    targets: Sequence[Sequence[int]],
    parameters: FitParameters,
    mix: Tensor | None = None,
) -> Generator[Progress, None, list[Fit]]:
    """Learn one value a target: `contexts[e]` are prompts (ids) that shall be continued by `targets[e]` (ids).

    `mix` (R, J, J), if given, says how much of each row of the value arrives at each of a context's positions; without
    it row j arrives at position j.
    Values are independent parameters, each in units of its own contexts' residual streams, and Adam works by element,
    so fitting a batch is fitting each alone; a row stops by itself when its answer is right with every token at least
    at `probability`.
    """
    device = view.device
    batch = collate(contexts, targets, device)
    tails: list[Tail] = []
    for part in view.tails(batch.ids, batch.position):
        tails.append(part)
        yield Progress(step=0, steps=parameters.max_steps, loss=float("nan"))
    tail = Tail.joined(tails)
    edits, width = len(targets), batch.position.shape[1]
    counts = torch.bincount(batch.owner, minlength=edits)  # contexts of each edit
    prompt_end = tail.hidden[:, 0].float()
    scale = _mean_by(prompt_end.pow(2).mean(-1), batch.owner, counts).sqrt()[:, None, None]  # (E, 1, 1)
    cap = parameters.norm_cap * _mean_by(prompt_end.norm(dim=-1), batch.owner, counts)[:, None, None] / scale
    value = torch.zeros(edits, width, prompt_end.shape[-1], device=device, requires_grad=True)  # in units of `scale`
    optimiser = torch.optim.Adam([value], lr=parameters.learning_rate)
    surest, since = torch.full((edits,), 1e-30, device=device), torch.zeros(edits, device=device)
    done: dict[int, Fit] = {}
    for step in range(1, parameters.max_steps + 1):
        with torch.enable_grad():
            by_row = (value * scale)[batch.owner]  # (R, J, D)
            delta = (by_row if mix is None else mix @ by_row) * batch.real[..., None]
            picked = view.tail_logits(tail, {view.site: adding(delta)})  # (R, J, V)
            nll = F.cross_entropy(picked.flatten(0, 1), batch.target.flatten(), reduction="none").view_as(batch.real)
            nll = nll.masked_fill(~batch.real, 0.0)
            mean = nll.sum(1) / batch.real.sum(1)
            loss = (mean / counts[batch.owner]).sum()
            loss = loss + parameters.weight_decay * value.pow(2).mean(-1).sum()
        right = ((picked.argmax(-1) == batch.target) | ~batch.real).all(1)
        worst = torch.exp(-nll.detach()).masked_fill(~batch.real, 1.0).amin(1)  # (R,)
        least_of = torch.zeros(edits, device=device).index_fill(0, batch.owner, 2.0)
        least_of = least_of.scatter_reduce(0, batch.owner, worst, "amin")
        surest, since = stalled(least_of, surest, since)
        for edit in range(edits):
            if edit not in done:
                rows = batch.owner == edit
                least = least_of[edit].item()
                good = bool(right[rows].all()) and least >= parameters.probability
                stays = bool(right[rows].all()) and since[edit].item() >= PATIENCE
                if good or stays or step == parameters.max_steps:
                    learned = (value.detach() * scale)[edit, : len(targets[edit])].clone()
                    done[edit] = Fit(value=learned, steps=step - 1, converged=good, probability=least)
        yield Progress(step=step, steps=parameters.max_steps, loss=loss.item())
        if len(done) == edits:
            break
        going = torch.tensor([edit not in done for edit in range(edits)], device=device)[batch.owner]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            norm = value.norm(dim=-1, keepdim=True)
            value.mul_((cap / norm.clamp(min=1e-12)).clamp(max=1.0))
        if 2 * int(going.sum()) <= len(batch.ids):  # what has stopped is not computed on with what goes on
            batch, tail = batch.only(going), tail.only(going)
            mix = None if mix is None else mix[going]
    return [done[edit] for edit in range(edits)]


def stalled(least: Tensor, surest: Tensor, since: Tensor) -> tuple[Tensor, Tensor]:
    """The least probability of each edit's tokens (E,), the best so far, and how many looks ago it gained."""
    gained = least.log() > GAIN * surest.log()
    return torch.where(gained, least, surest), torch.where(gained, 0.0, since + 1)


def _mean_by(each: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    """(R,) by context -> (E,), an edit's mean."""
    return torch.zeros(len(counts), device=each.device).index_add(0, owner, each) / counts
