"""What a fit runs again and again is what the whole model would compute."""

import pytest
import torch

from app.editors.fit import collate
from app.editors.fit_view import FitView, adding
from app.editors.hooks import SiteHooks
from app.editors.sites import ffn_site, layers_of
from app.editors.tail import Tail
from tests.models import TINY, tiny


@pytest.mark.parametrize("kind", sorted(TINY))
def test_the_tail_of_a_row_is_computed_as_the_whole_row(kind: str) -> None:
    """Values at the prompt's last token and after it, in rows of different lengths; gradients too."""
    hosted = tiny(kind)
    layer = len(layers_of(hosted.model, hosted.architecture)) - 1
    site = ffn_site(hosted.model, hosted.architecture, max(0, layer - 1))
    view = FitView(hosted.model, hosted.architecture, site, SiteHooks(hosted.model))
    prompts = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14]]
    batch = collate([prompts], [[20, 21, 22]], "cpu")
    delta = torch.randn(3, 3, view.widths[1], generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = torch.arange(3)[:, None].expand(3, 3)
    with torch.enable_grad():
        placed = torch.zeros(*batch.ids.shape, view.widths[1]).index_put((rows, batch.position), delta)
        whole = view.logits(batch.ids, view.hidden_below(batch.ids), {site: adding(placed)}, batch.position)
        tail = view.tail_logits(Tail.joined(list(view.tails(batch.ids, batch.position))), {site: adding(delta)})
        by_whole = torch.autograd.grad(whole.logsumexp(-1).sum(), delta)[0]
        by_tail = torch.autograd.grad(tail.logsumexp(-1).sum(), delta)[0]
    assert torch.allclose(whole, tail, atol=1e-4)
    assert torch.allclose(by_whole, by_tail, atol=1e-4)
    assert torch.allclose(
        view.base_logits(batch.ids, batch.position),
        view.tail_logits(Tail.joined(list(view.tails(batch.ids, batch.position))), {}),
        atol=1e-4,
    )
