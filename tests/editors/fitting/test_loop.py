"""The fitting loop: what is learned holds in every context at once, in few passes, none of them long."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from app.editors.base import FitProgress
from app.editors.fitting.contexts import collate
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.loop import MAX_EDITS_PER_PASS, fit_deltas, in_batches
from app.editors.fitting.sites import ffn_site
from app.editors.fitting.value_search import Fit, FitParameters
from app.editors.fitting.view import FitView, adding
from tests.models import tiny

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17]]
TARGET = [20, 21, 22, 23, 24, 0]
HOW = FitParameters()


@pytest.fixture(scope="module")
def view() -> FitView:
    """A model that can be made sure of its answers: a random one's logits are flat."""
    hosted = tiny("llama")
    hosted.model.model.norm.weight.data.mul_(6)
    return FitView(
        hosted.model, hosted.architecture, ffn_site(hosted.model, hosted.architecture, None), SiteHooks(hosted.model)
    )


def learn(view: FitView, *targets: list[int], how: FitParameters = HOW, mix: Tensor | None = None) -> list[Fit]:
    steps = fit_deltas(view, [PROMPTS] * len(targets), targets, how, mix)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: list[Fit] = stop.value
            return found


def chances(view: FitView, fit: Fit, target: list[int], mix: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Target tokens' probabilities in each context, and whether they are greedy, from whole forward passes."""
    batch = collate([PROMPTS], [target], "cpu")
    delta = fit.value.expand(len(PROMPTS), -1, -1) if mix is None else mix @ fit.value
    rows = torch.arange(len(PROMPTS))[:, None]
    placed = torch.zeros(*batch.ids.shape, delta.shape[-1]).index_put((rows, batch.position), delta)
    logits = view.logits(batch.ids, view.hidden_below(batch.ids), {view.site: adding(placed)}, batch.position)
    chosen = logits.softmax(-1).gather(2, batch.target[..., None])[..., 0]
    return chosen.detach(), logits.argmax(-1) == batch.target


def test_a_value_holds_in_all_contexts_and_columns_at_once(view: FitView) -> None:
    (fit,) = learn(view, TARGET)
    chosen, first = chances(view, fit, TARGET)
    assert fit.converged
    assert first.all()
    assert chosen.min() >= HOW.probability - 1e-4
    assert fit.probability == pytest.approx(float(chosen.min()), abs=1e-3), "what it tells is what stands"


def test_rows_of_a_value_that_arrive_elsewhere_too_hold_as_well(view: FitView) -> None:
    """Half of each row arrives one position later too, as of neurons that fire into the next token."""
    width = len(TARGET)
    mix = (torch.eye(width) + 0.5 * torch.eye(width).roll(1, 0).tril()).expand(len(PROMPTS), -1, -1)
    (fit,) = learn(view, TARGET, mix=mix)
    chosen, first = chances(view, fit, TARGET, mix)
    assert fit.converged
    assert first.all()
    assert chosen.min() >= HOW.probability - 1e-4


def test_edits_that_are_fitted_together_share_nothing(view: FitView) -> None:
    other = [30, 31, 0]
    together = learn(view, TARGET, other)
    for target, each in zip((TARGET, other), together, strict=True):
        (alone,) = learn(view, target)
        assert torch.allclose(alone.value, each.value, atol=1e-4)
        assert alone.steps == each.steps


@pytest.fixture
def passes(view: FitView, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and columns of each pass through the layers above the site."""
    found: list[tuple[int, int]] = []
    states = FitView.suffix_states

    def counted(self: FitView, suffix: Any, rows: Tensor, columns: Tensor, acts: Any) -> Tensor:
        found.append((len(rows), columns.shape[1]))
        return states(self, suffix, rows, columns, acts)

    monkeypatch.setattr(FitView, "suffix_states", counted)
    return found


def test_columns_that_hold_are_not_computed_again_until_all_seem_to(
    view: FitView, passes: list[tuple[int, int]]
) -> None:
    (fit,) = learn(view, TARGET)
    counts = [columns for _, columns in passes]
    assert fit.steps >= 2
    assert counts[0] == counts[-1] == len(TARGET), "all at first, and all before it ends"
    assert min(counts) < len(TARGET)


def test_no_micro_step_takes_more_tokens_than_it_may(
    view: FitView, passes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.editors.fitting.view.MAX_CPU_TOKENS_PER_PASS", 12)
    learn(view, TARGET, TARGET[2:])
    assert max(rows * columns for rows, columns in passes) <= 12
    assert max(rows for rows, _ in passes) > 1


def test_a_value_is_no_larger_than_its_cap(view: FitView) -> None:
    batch = collate([PROMPTS], [TARGET], "cpu")
    entering = view.hidden_below(batch.ids)[torch.arange(len(PROMPTS)), batch.position[:, 0]]
    size = float(entering.norm(dim=-1).mean())
    (fit,) = learn(view, TARGET, how=FitParameters(norm_cap=0.01, max_steps=4))
    assert not fit.converged
    assert fit.steps == 4
    assert float(fit.value.norm(dim=-1).max()) <= 0.01 * size * (1 + 1e-4)


def test_what_cannot_be_made_sure_of_stays_once_it_is_right(view: FitView) -> None:
    """Odds that no value reaches: the answer stands as it is when it gains nothing more."""
    sure = FitParameters(probability=1 - 1e-12, norm_cap=3.0, max_steps=500)
    (fit,) = learn(view, TARGET, how=sure)
    _, first = chances(view, fit, TARGET)
    assert first.all()
    assert not fit.converged
    assert fit.steps < 100
    assert math.isfinite(fit.probability)


def test_its_share_of_the_work_grows_to_nearly_all_of_it(view: FitView) -> None:
    """A target is learned in several steps, and each of them estimates the work that is left."""
    steps = fit_deltas(view, [PROMPTS, PROMPTS], [TARGET, [25, 0]], HOW)
    shares = [progress.done for progress in steps]
    assert shares[0] == 0
    assert all(0 <= share < 1 for share in shares)
    assert shares[-1] == max(shares) > 0.5


def test_parts_of_a_batch_are_parts_of_its_progress(view: FitView) -> None:
    def fit_some(some: Any) -> Any:
        yield FitProgress(step=0, steps=4, loss=0.0)
        yield FitProgress(step=2, steps=4, loss=0.0)
        return list(some)

    long, short = SimpleNamespace(target_ids=[1] * 8, contexts=[[1]]), SimpleNamespace(target_ids=[1], contexts=[[1]])
    steps = in_batches([long] * MAX_EDITS_PER_PASS + [short] * MAX_EDITS_PER_PASS, fit_some)
    assert [round(progress.done * 9, 6) for progress in steps] == [0, 0.5, 1, 5]
