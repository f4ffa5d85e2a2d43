"""The part of the model that a fit runs again and again computes what the whole model would."""

from typing import Any

import pytest
import torch

from app.editors.fitting.contexts import collate
from app.editors.fitting.hooks import SiteHooks
from app.editors.fitting.sites import ffn_site, layers_of
from app.editors.fitting.suffix import Suffix, shared_start
from app.editors.fitting.token_odds import token_odds
from app.editors.fitting.view import FitView, adding
from tests.models import TINY, tiny

COMMON = list(range(30, 50))
PROMPTS = {
    "nothing in common": [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14]],
    "a common start": [[*COMMON, 5, 6], [*COMMON, 7], [*COMMON, 5, 6, 8]],
    "both": [[*COMMON, 5, 6], [*COMMON, 7], [12, 13]],
}


def view_of(kind: str, layer: int | None = None) -> FitView:
    hosted = tiny(kind)
    last = len(layers_of(hosted.model, hosted.architecture)) - 1
    site = ffn_site(hosted.model, hosted.architecture, max(0, last - 1) if layer is None else layer)
    return FitView(hosted.model, hosted.architecture, site, SiteHooks(hosted.model))


@pytest.mark.parametrize("layer", [None, 0])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("kind", sorted(TINY))
def test_the_suffix_of_a_row_is_computed_as_the_whole_row(
    kind: str, prompts: list[list[int]], layer: int | None
) -> None:
    """Values at the prompt's last token and after it, in rows of different lengths; gradients too."""
    view = view_of(kind, layer)
    head = view.model.get_output_embeddings()
    batch = collate([prompts], [[20, 21, 22]], "cpu")
    delta = torch.randn(3, 3, view.widths[1], generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows, columns = torch.arange(3), torch.arange(3).expand(3, 3)
    suffixes = Suffix.joined(list(view.suffixes(batch.ids, batch.position)))
    with torch.enable_grad():
        placed = torch.zeros(*batch.ids.shape, view.widths[1]).index_put((rows[:, None], batch.position), delta)
        whole = view.logits(batch.ids, view.hidden_below(batch.ids), {view.site: adding(placed)}, batch.position)
        suffix = head(view.suffix_states(suffixes, rows, columns, {view.site: adding(delta)})).float()
        by_whole = torch.autograd.grad(whole.logsumexp(-1).sum(), delta)[0]
        by_suffix = torch.autograd.grad(suffix.logsumexp(-1).sum(), delta)[0]
    assert torch.allclose(whole, suffix, atol=1e-4)
    assert torch.allclose(by_whole, by_suffix, atol=1e-4)
    without = head(view.suffix_states(suffixes, rows, columns, {})).float()
    assert torch.allclose(view.base_logits(batch.ids, batch.position), without, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(TINY))
def test_some_columns_of_a_suffix_are_computed_beside_the_others_as_they_stood(kind: str) -> None:
    """The last two are given anew after a pass over all, pads among them: what stands before them is as it was."""
    view = view_of(kind)
    batch = collate([PROMPTS["both"]], [[20, 21, 22, 23]], "cpu")
    delta = torch.randn(3, 4, view.widths[1], generator=torch.Generator().manual_seed(0))
    rows, everything = torch.arange(3), torch.arange(4).expand(3, 4)
    suffix, again = (Suffix.joined(list(view.suffixes(batch.ids, batch.position))) for _ in range(2))
    view.suffix_states(suffix, rows, everything, {view.site: adding(delta)})
    delta[:, 2:] *= 2
    some = torch.tensor([[2, 3, 4], [3, 4, 4]])  # 4 is a pad
    added = torch.nn.functional.pad(torch.stack([delta[0, 2:], delta[2, [3, 3]]]), (0, 0, 0, 1))
    found = view.suffix_states(suffix, torch.tensor([0, 2]), some, {view.site: adding(added)})
    expected = view.suffix_states(again, rows, everything, {view.site: adding(delta)})
    assert torch.allclose(found[0, :2], expected[0, 2:], atol=1e-4)
    stale = delta.clone()
    stale[:, 2] /= 2
    expected = view.suffix_states(again, rows, everything, {view.site: adding(stale)})
    assert torch.allclose(found[1, 0], expected[2, 3], atol=1e-4)


def test_prompts_go_together_as_far_as_they_start_alike() -> None:
    alike, apart = PROMPTS["a common start"], PROMPTS["nothing in common"]
    assert shared_start(alike) == (tuple(COMMON), 3)
    assert shared_start([*apart, *alike]) == ((), 3), "what shares nothing goes together without a start"
    assert shared_start([*alike, *apart]) == (tuple(COMMON), 3)
    assert shared_start([*alike[:1], *apart]) == ((), 4)
    assert shared_start([COMMON, COMMON, COMMON]) == (tuple(COMMON[:-1]), 3), "each keeps a token of its own"
    longer = [[*COMMON, *range(50, 80), last] for last in (1, 2)]
    assert shared_start([*longer, *alike]) == (tuple(longer[0][:-1]), 2), "a few do not cost the others theirs"
    assert shared_start([each[10:] for each in alike[:2]]) == ((), 2), "too little for a pass of its own"


def test_a_long_common_start_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of("llama")
    passed: list[int] = []
    model_forward = view.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        passed.append(kwargs["input_ids"].numel())
        return model_forward(*args, **kwargs)

    monkeypatch.setattr(view.model, "forward", counted)
    batch = collate([PROMPTS["a common start"]], [[20]], "cpu")
    list(view.suffixes(batch.ids, batch.position))
    assert sum(passed) == len(COMMON) + 3 * 3, "the start, and three rows of the longest end"


def test_how_clearly_a_state_gives_a_token_and_which_way_that_grows() -> None:
    head = torch.nn.Linear(16, 40)
    states = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([0, 3, 39, 7, 7])
    logits = head(states)
    chance = logits.softmax(-1).gather(1, target[:, None])[:, 0]
    odds = (chance / (1 - chance)).log()
    (slope,) = torch.autograd.grad(odds.sum(), states)
    found = token_odds(head, states.detach(), target, torch.device("cpu"))
    assert torch.allclose(found.odds, odds, atol=1e-5)
    assert torch.equal(found.greedy, logits.argmax(-1) == target)
    assert torch.allclose(found.slope, slope, atol=1e-5)
