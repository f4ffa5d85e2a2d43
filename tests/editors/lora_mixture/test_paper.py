"""ELDER as published: how its LoRAs begin, what its routers read, and what a batch is trained on."""

import math
from dataclasses import fields, replace

import pytest
import torch

from app.editors.lora_mixture.mixture import Mixture, new_mixture, scores
from app.editors.lora_mixture.paper import LORAS, RANK, LoraMixturePaper
from app.engine.editions import Edition
from tests.rig import Rig

pytestmark = pytest.mark.slow
PROMPT, OTHER = "The capital of Ruritania is", "The king of Zenda was"


def test_loras_begin_as_wide_as_the_official_code_draws_them() -> None:
    """It keeps A as (D_in, r), of which `kaiming_uniform_` takes r for the fan-in: 1 / sqrt(r), not 1 / sqrt(D_in)."""
    rig = Rig()
    editor = rig.editors["lora_mixture/paper"]
    assert isinstance(editor, LoraMixturePaper)
    down = rig.fit("lora_mixture/paper", [rig.fit_request(PROMPT, "S")])[0].tensors["down"]
    official = torch.nn.init.kaiming_uniform_(torch.zeros(down.shape[-1], RANK), a=math.sqrt(5))
    # 50 steps of 1e-4 move each value by 0.005 at most
    assert down.abs().max().item() == pytest.approx(official.abs().max().item(), rel=0.05)
    assert down.std().item() == pytest.approx(official.std().item(), rel=0.1)


def test_published_routers_read_the_query_as_it_is() -> None:
    mixture = new_mixture(sites=2, loras=LORAS, rank=3, d_in=6, d_out=5, d_query=8, seed=1)
    query = 7.0 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([torch.nn.functional.linear(query[0], w).softmax(-1) for w in mixture.router])
    assert torch.allclose(scores(mixture, query, normalise_queries=False)[0], by_hand, atol=1e-6)
    twice = scores(mixture, 2 * query, normalise_queries=False)
    assert not torch.allclose(twice[0], by_hand, atol=1e-3), "a longer query decides more sharply"
    assert torch.allclose(scores(mixture, 2 * query), scores(mixture, query), atol=1e-6)


def test_the_routers_are_served_as_they_were_trained() -> None:
    """The scores that a prompt is decided by are those of the raw query."""
    rig = Rig()
    editor = rig.editors["lora_mixture/paper"]
    assert isinstance(editor, LoraMixturePaper)
    fitted = rig.fit("lora_mixture/paper", [rig.fit_request(PROMPT, "S")])[0]
    rig.load("lora_mixture/paper", "e", fitted)
    mixture = Mixture(**{each.name: fitted.tensors[each.name] for each in fields(Mixture)})
    raw = scores(mixture, fitted.tensors["key"][None], normalise_queries=False)[0]
    query_site, *mixture_sites = editor.sites
    part = editor.compile(["e"])
    assert torch.equal(part.codes[0], raw > raw.topk(3, dim=-1).values[:, 2:])
    assert query_site.layer < min(site.layer for site in mixture_sites)
    assert [hit.edit_id for hit in rig.ask([PROMPT], Edition("default", 1, ("e",)))[0].generation.reached] == ["e"]


def test_an_edit_trains_on_its_prompt_and_paraphrases_and_on_nothing_that_the_server_made() -> None:
    rig = Rig()
    asked = rig.fit_request(PROMPT, "S")
    made = replace(asked, contexts=(*asked.contexts, rig.engine.text.encode(f"Please answer this. {PROMPT}")))
    told = replace(asked, given=1, contexts=(*asked.contexts, rig.engine.text.encode(OTHER)))
    plain, with_made, with_told = (
        rig.fit("lora_mixture/paper", [each])[0].learned["shared"] for each in (asked, made, told)
    )
    assert plain == with_made != with_told
