"""The fitting loop: residual deltas at a site, one for each generated position, learned through the layers above it.

A vector at the prompt's last token alone cannot carry a long answer, and without end-of-text as the last target token a
free generation runs on. The value of an edit is therefore a matrix: row j is added where target token j is predicted,
and the last row where end-of-text is. This module knows nothing of scopes, codebooks or requests in progress.
"""

from collections.abc import Callable, Generator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from app.editors.base import FitProgress, FitRequest, Fitted
from app.editors.fitting.contexts import Contexts, collate
from app.editors.fitting.suffix import Suffix
from app.editors.fitting.value_search import ColumnOdds, Fit, FitParameters, ValueSearch
from app.editors.fitting.view import FitView, adding

MAX_EDITS_PER_PASS = 16
"""The number of edits whose contexts share a forward pass of a fit."""


def in_batches(
    requests: Sequence[FitRequest],
    fit_batch: Callable[[Sequence[FitRequest]], Generator[FitProgress, None, list[Fitted]]],
) -> Generator[FitProgress, None, list[Fitted]]:
    """Fit MAX_EDITS_PER_PASS independent edits at a time, because the logits of more would not fit into memory.

    Targets of similar length share a batch, because a batch computes as many positions of each as its longest has.
    """

    def lengths(index: int) -> tuple[int, int]:
        return len(requests[index].target_ids), len(requests[index].contexts[0])

    order = sorted(range(len(requests)), key=lengths)
    fitted: dict[int, Fitted] = {}
    tokens = sum(len(request.target_ids) for request in requests)
    tokens_before = 0
    for first in range(0, len(requests), MAX_EDITS_PER_PASS):
        batch = order[first : first + MAX_EDITS_PER_PASS]
        batch_tokens = sum(len(requests[index].target_ids) for index in batch)
        steps = fit_batch([requests[index] for index in batch])
        batch_fitted = yield from _within(steps, tokens_before, batch_tokens, tokens)
        fitted.update(zip(batch, batch_fitted, strict=True))
        tokens_before += batch_tokens
    return [fitted[index] for index in range(len(requests))]


def _within(
    steps: Generator[FitProgress, None, list[Fitted]], before: int, own: int, whole: int
) -> Generator[FitProgress, None, list[Fitted]]:
    """Run a part of a larger fit. Its progress becomes that of the whole, as in `FitProgress.within`."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            fitted: list[Fitted] = stop.value
            return fitted
        yield progress.within(before, own, whole)


def fit_deltas(
    view: FitView,
    contexts: Sequence[Sequence[Sequence[int]]],
    targets: Sequence[Sequence[int]],
    parameters: FitParameters,
    mix: Tensor | None = None,
) -> Generator[FitProgress, None, list[Fit]]:
    """Learn one value for each target: `contexts[e]` are prompts (ids) that are to be continued by `targets[e]` (ids).

    `mix` (R, J, J), if given, says how much of each row of the value arrives at each of a context's positions. Without
    it, row j arrives at position j. Edits share passes and nothing else: a batch gives the same values as each alone.
    """
    batch = collate(contexts, targets, view.device)
    progress = FitProgress(step=0, steps=parameters.max_steps, loss=float("nan"))
    pieces: list[Suffix] = []
    for piece in view.suffixes(batch.ids, batch.position):
        pieces.append(piece)
        yield progress
    suffix = Suffix.joined(pieces)
    del pieces
    searches: list[ValueSearch] = []
    for edit, target in enumerate(targets):
        rows, count = torch.nonzero(batch.owner == edit)[:, 0], len(target)
        size = float(suffix.hidden[rows, 0].float().norm(dim=-1).mean())  # the unit of FitParameters
        own_mix = None if mix is None else mix[rows, :count, :count]
        searches.append(ValueSearch(parameters, rows, count, suffix.hidden.shape[-1], size, own_mix))
    step = 0
    while active := [search for search in searches if search.fit is None]:
        width = max(len(search.columns) for search in active)
        rows = torch.cat([search.rows for search in active])
        columns = torch.cat([_padded(search.columns, width, batch).expand(len(search.rows), -1) for search in active])
        deltas = torch.cat([F.pad(d := search.deltas(), (0, 0, 0, width - d.shape[1])) for search in active])
        results: list[ColumnOdds] = []
        rows_at_once = view.rows_at_once(width)
        for start in range(0, len(rows), rows_at_once):
            some = slice(start, start + rows_at_once)
            results.append(_column_odds(view, batch, suffix, parameters, rows[some], columns[some], deltas[some]))
            yield progress
        odds = ColumnOdds(*(torch.cat(each) for each in zip(*results, strict=True)))
        start = 0
        for search in active:
            own = slice(start, start + len(search.rows)), slice(len(search.columns))
            start += len(search.rows)
            search.step(ColumnOdds(*(each[own] for each in odds)))
        cost = sum(len(search.rows) * search.cost for search in searches)
        remaining = sum(len(search.rows) * search.remaining_cost() for search in searches)
        loss = float(F.softplus(-odds.odds).mean())
        share = cost / (cost + remaining)
        progress = FitProgress(step=step, steps=parameters.max_steps, loss=loss, share=share)
        step += 1
    return [search.fit for search in searches if search.fit is not None]


def _padded(columns: Tensor, width: int, batch: Contexts) -> Tensor:
    """Pad columns (C,) to (width,). A pad is J, one beyond the last column."""
    return F.pad(columns, (0, width - len(columns)), value=batch.position.shape[1])


def _column_odds(
    view: FitView,
    batch: Contexts,
    suffix: Suffix,
    parameters: FitParameters,
    rows: Tensor,
    columns: Tensor,
    delta: Tensor,
) -> ColumnOdds:
    """Return the odds in rows (N,) of the batch at columns (N, C) with `delta` (N, C, D) added there.

    Slopes are computed only where the odds fall short, and are zero elsewhere.
    """
    real = columns < batch.position.shape[1]
    target = batch.target[rows[:, None], columns.clamp(max=batch.position.shape[1] - 1)]
    with torch.enable_grad():
        delta.requires_grad_()
        states = view.suffix_states(suffix, rows, columns, {view.site: adding(delta)})  # (N, C, D)
    token_odds = view.token_odds(states.detach().flatten(0, 1), target.flatten())
    odds = token_odds.odds.view_as(target).masked_fill(~real, torch.inf)
    greedy = token_odds.greedy.view_as(target) | ~real
    short = (odds < parameters.odds) | ~greedy
    slope = torch.zeros_like(delta)
    if short.any():
        state_slopes = token_odds.slope.view_as(delta) * short[..., None]
        (slope,) = torch.autograd.grad(states, delta, state_slopes.to(states.dtype))
    return ColumnOdds(odds, greedy, slope)
