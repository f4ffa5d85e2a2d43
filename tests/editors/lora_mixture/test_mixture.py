"""A mixture of LoRAs against its formula written out, and what allocation codes can and cannot tell apart."""

import itertools
import math
from collections import Counter

import pytest
import torch

from app.editors.base import Decision, RowView, Site
from app.editors.lora_mixture.mixture import (
    Mixture,
    allocate_loras,
    hamming,
    mixture_act,
    new_mixture,
    scores,
    top_k_mask,
)
from app.editors.lora_mixture.pages import Routing, active_loras


def mixture() -> Mixture:
    fresh = new_mixture(sites=2, loras=4, rank=3, d_in=6, d_out=5, d_query=8, seed=1)
    up = torch.randn(fresh.up.shape, generator=torch.Generator().manual_seed(2))
    return Mixture(fresh.down, up, fresh.router, torch.randn(2, 4, generator=torch.Generator().manual_seed(3)))


def test_a_new_mixture_changes_nothing() -> None:
    fresh = new_mixture(sites=2, loras=4, rank=3, d_in=6, d_out=5, d_query=8, seed=1)
    h_in, h_out = torch.randn(2, 7, 6), torch.randn(2, 7, 5)
    assert torch.equal(mixture_act(fresh, 0, torch.ones(2, 4))(h_in, h_out), h_out)
    assert (
        fresh.digest()
        == new_mixture(2, 4, 3, 6, 5, 8, seed=1).digest()
        != new_mixture(2, 4, 3, 6, 5, 8, seed=2).digest()
    )


def test_what_acts_is_the_sum_of_the_chosen_loras_times_their_scores() -> None:
    """y = W x + sum over the k chosen of s_j B_j A_j x, scores not renormalised (section 3.2)."""
    learned = mixture()
    queries = torch.randn(3, 8, generator=torch.Generator().manual_seed(4))
    scored = scores(learned, queries)
    gates = scored * top_k_mask(scored, 2)
    h_in, h_out = torch.randn(3, 7, 6), torch.randn(3, 7, 5)
    found = mixture_act(learned, 1, gates[:, 1])(h_in, h_out)
    for row in range(3):
        chosen = scored[row, 1].topk(2)
        assert chosen.values.sum() < 1
        by_hand = h_out[row].clone()
        for score, j in zip(chosen.values, chosen.indices, strict=True):
            by_hand += score * h_in[row] @ learned.down[1, j].T @ learned.up[1, j].T
        assert torch.allclose(found[row], by_hand, atol=1e-5)


def test_rows_of_different_pages_are_served_side_by_side_as_each_alone() -> None:
    site = Site(0, "there")
    pages, held = [mixture(), new_mixture(2, 4, 3, 6, 5, 8, seed=9), mixture()], []
    pages[1].up.normal_(generator=torch.Generator().manual_seed(5))
    h_in, h_out = torch.randn(4, 7, 6), torch.randn(4, 7, 5)
    expected = h_out.clone()
    for row, page in enumerate(pages):
        scored = scores(page, torch.randn(1, 8, generator=torch.Generator().manual_seed(row)))
        gates = scored * top_k_mask(scored, 2)
        expected[row] = mixture_act(page, 1, gates[:, 1])(h_in[row : row + 1], h_out[row : row + 1])[0]
        decision = Decision(
            edit_id="e", editor="lora_mixture", margin=1.0, signals={}, state=active_loras(page, gates[0], 2)
        )
        held.append(RowView(decision, (), 0, 7, 7))
    routing = Routing([Site(0, "below"), site], torch.device("cpu"))
    routing.bind("lora_mixture", [*held, RowView(None, (), 0, 7, 7)])
    assert torch.allclose(routing.apply(site, h_in, h_out), expected, atol=1e-5)
    routing.bind("lora_mixture", [RowView(None, (), 0, 7, 7)] * 4)
    assert torch.equal(routing.apply(site, h_in, h_out), h_out)


def test_scores_are_a_softmax_at_each_site() -> None:
    scored = scores(mixture(), torch.randn(3, 8))
    assert scored.shape == (3, 2, 4)
    assert torch.allclose(scored.sum(-1), torch.ones(3, 2))
    assert (top_k_mask(scored, 2).sum(-1) == 2).all()


def test_allocations_are_of_k_and_distinct_while_they_can_be() -> None:
    drawn = allocate_loras(edits=30, sites=3, loras=4, k=2, seed=0)
    assert (drawn.sum(-1) == 2).all()
    assert len({tuple(code.flatten().tolist()) for code in drawn}) == 30
    assert torch.equal(drawn, allocate_loras(30, 3, 4, 2, seed=0))
    assert allocate_loras(5, 1, 2, 2, seed=0).all(), "of two LoRAs there is one pair"


def test_codes_alone_cannot_tell_many_edits_apart() -> None:
    """6 sites, 2 of 4, nearer than 12: a random code is in scope of one stored edit in 35 %, of one of 16 in 99.9 %."""
    pairs = list(itertools.combinations(range(4), 2))
    at_a_site = Counter(len(set(a) ^ set(b)) for a in pairs[:1] for b in pairs)  # by symmetry, of one pair to all
    ways = Counter({0: 1})
    for _ in range(6):
        ways = Counter({d: sum(n * at_a_site[d - e] for e, n in ways.items()) for d in range(25)})
    one = sum(n for distance, n in ways.items() if distance < 12) / len(pairs) ** 6
    assert one == pytest.approx(0.35, abs=0.01)
    assert 1 - (1 - one) ** 16 > 0.998
    assert math.prod([len(pairs)] * 6) == 46_656


def test_hamming_counts_places() -> None:
    codes = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 1, 1]], [[1, 0, 1, 0]]], dtype=torch.bool)
    assert hamming(codes[0], codes).tolist() == [0, 4, 2]
