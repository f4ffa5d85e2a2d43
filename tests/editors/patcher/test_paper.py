"""Transformer-Patcher as published: edits are made one after the other, each beside the patches of all earlier ones."""

from dataclasses import replace

import pytest
import torch

from app.editors.base import Decision, Fitted, RowView
from app.editors.patcher.paper import PatcherPaper
from app.engine.editions import Edition
from tests.rig import Rig

pytestmark = pytest.mark.slow
PROMPT, OTHER = "The capital of Ruritania is", "The king of Zenda was"


def shouting(rig: Rig, token: str, strength: float) -> dict[str, torch.Tensor]:
    """A patch that is active everywhere and turns every answer towards one token."""
    editor = rig.editors["patcher/paper"]
    assert isinstance(editor, PatcherPaper)
    head = rig.hosted.model.get_output_embeddings().weight
    towards = head[rig.engine.text.encode(token)[-1]]
    elsewhere = rig.foundation.view(editor.site).inputs(torch.tensor([rig.engine.text.encode(OTHER)]))[0, -1:]
    values = strength * (towards / towards.norm())[None]
    return {
        "keys": torch.zeros_like(elsewhere),
        "biases": torch.ones(1),
        "values": values,
        "queries": elsewhere,
    }


def test_a_patch_is_trained_with_earlier_patches_acting() -> None:
    """One that is trained without them does not hold beside them, though all of them are served together."""
    rig = Rig("gpt2")
    request = rig.fit_request(PROMPT, "S")
    alone = rig.fit("patcher/paper", [request])[0]
    rig.load("patcher/paper", "alone", alone)
    target = list(request.target_ids)
    assert tokens(rig, "alone") == target
    # what it takes to drown a patch differs from processor to processor: the weakest such patch is loud
    for loud in (f"loud {half}" for half in range(2, 20)):
        strength = int(loud.split()[1]) / 2
        rig.load("patcher/paper", loud, replace(alone, tensors=shouting(rig, "Q", strength)))
        if tokens(rig, loud, "alone") != target:
            break
    assert tokens(rig, loud, "alone") != target
    rig.load("patcher/paper", "beside", rig.fit("patcher/paper", [request], Edition("default", 1, (loud,)))[0])
    assert tokens(rig, loud, "beside") == target


def tokens(rig: Rig, *edit_ids: str) -> list[int]:
    """The answer to PROMPT under these edits."""
    return rig.ask([PROMPT], Edition("default", 2, edit_ids), count=4)[0].tokens


def test_edits_of_a_batch_are_made_one_after_the_other() -> None:
    rig = Rig("gpt2")
    first, second = rig.fit_request(PROMPT, "S"), rig.fit_request(OTHER, "R")
    both = rig.fit("patcher/paper", [first, second])
    alone = rig.fit("patcher/paper", [first])[0]
    assert all(torch.equal(both[0].tensors[name], alone.tensors[name]) for name in alone.tensors)
    rig.load("patcher/paper", "first", alone)
    later = rig.fit("patcher/paper", [second], Edition("default", 1, ("first",)))[0]
    assert all(torch.equal(both[1].tensors[name], later.tensors[name]) for name in later.tensors)


def test_earlier_patches_add_up_with_new_ones_as_they_are_served() -> None:
    rig = Rig("llama")
    editor = rig.editors["patcher/paper"]
    assert isinstance(editor, PatcherPaper)
    parts: list[dict[str, torch.Tensor]] = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        tensors = {name: torch.randn(2, 32, generator=generator) for name in ("keys", "values", "queries")}
        parts.append({**tensors, "biases": torch.randn(2, generator=generator)})
    h_in, h_out = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    for name, tensors in zip(("first", "second"), parts, strict=True):
        editor.load(name, Fitted(learned={}, tensors=tensors))
    part = editor.compile(("first", "second"))
    editor.bind(
        [RowView(Decision(edit_id="first", editor=editor.key, margin=1.0, signals={}, state=part), (), 0, 3, 3)]
    )
    by_hand = h_out.clone()
    for tensors in parts:
        for neuron in range(2):
            active = torch.nn.functional.silu(h_in @ tensors["keys"][neuron] + tensors["biases"][neuron])
            by_hand = by_hand + active[..., None] * tensors["values"][neuron]
    assert torch.allclose(editor.apply(editor.site, h_in, h_out), by_hand, atol=1e-5)
