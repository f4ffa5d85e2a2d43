"""GRACE as published: what acts where, against the whole sequence computed anew for every token, the value in place."""

from typing import Any

import pytest
import torch

from app.editors.base import Fitted
from app.editors.grace.paper import GraceOptions
from app.engine.editions import Edition
from tests.rig import NOTHING, Rig

pytestmark = pytest.mark.slow
PROMPT, OTHER = "The capital of Ruritania is", "Nobody asked about the river Styx"
WHERE = {
    "replace_last": lambda at, prompt: at == prompt - 1,
    "replace_prompt": lambda at, prompt: at < prompt - 1,
    "replace_all": lambda at, prompt: True,
}


def by_hand(rig: Rig, prompt: str, value: torch.Tensor, replacement: str, count: int) -> list[int]:
    """Greedy tokens; at each, the site's output is the value wherever the replacement says, and no cache is used."""
    (site,) = rig.editors["grace/paper"].sites
    start = len(rig.engine.text.encode(prompt))

    def place(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        flat = output.reshape(-1, output.shape[-1]).clone()
        for at in range(len(flat)):
            if WHERE[replacement](at, start):
                flat[at] = value
        return flat.reshape(output.shape)

    ids = list(rig.engine.text.encode(prompt))
    handle = rig.hosted.model.get_submodule(site.module).register_forward_hook(place)
    try:
        while len(ids) - start < count:
            with torch.inference_mode():
                logits = rig.hosted.model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] in rig.hosted.eos_ids:
                break
    finally:
        handle.remove()
    return ids[start:]


@pytest.mark.parametrize("value_init", ["cold", "warm"])
@pytest.mark.parametrize("replacement", WHERE)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_the_value_stands_where_the_replacement_says_and_nowhere_else(
    kind: str, replacement: Any, value_init: Any
) -> None:
    rig = Rig(kind, grace_options=GraceOptions(replacement=replacement, value_init=value_init, steps=15))
    fitted = rig.fit("grace/paper", [rig.fit_request(PROMPT, "S")])[0]
    rig.load("grace/paper", "e", fitted)
    edited, other = rig.ask([PROMPT, OTHER], Edition("default", 1, ("e",)))
    assert edited.tokens == by_hand(rig, PROMPT, fitted.tensors["value"], replacement, 8)
    assert [hit.edit_id for hit in edited.generation.reached] == ["e"]
    if not other.generation.reached:
        assert other.tokens == rig.ask([OTHER], NOTHING)[0].tokens


def test_values_begin_uniform_or_as_the_layers_own_output() -> None:
    cold, warm = (
        Rig(grace_options=GraceOptions(value_init=init, learning_rate=1e-9, steps=1)) for init in ("cold", "warm")
    )
    request = cold.fit_request(PROMPT, "S")
    drawn = cold.fit("grace/paper", [request])[0].tensors["value"]
    assert torch.allclose(drawn, torch.rand(32, generator=torch.Generator().manual_seed(request.seed)), atol=1e-6)
    assert 0 <= drawn.min() <= drawn.max() < 1
    own = warm.fit("grace/paper", [request])[0]
    warm.load("grace/paper", "e", own)
    asked = warm.ask([PROMPT], Edition("default", 1, ("e",)))[0]
    assert asked.tokens == warm.ask([PROMPT], NOTHING)[0].tokens, "its own output in its place changes nothing"


def test_of_edits_that_share_a_key_the_newest_ones_value_acts_and_each_comes_back() -> None:
    rig = Rig(grace_options=GraceOptions(radius=1e6, steps=30))
    target = rig.fit_request(PROMPT, "S").target_ids
    fits = [rig.fit("grace/paper", [rig.fit_request(prompt, "S")])[0] for prompt in (PROMPT, OTHER)]
    for name, fitted in zip("ab", fits, strict=True):
        rig.load("grace/paper", name, fitted)
    assert target == tuple(fits[1].learned["target_ids"])
    asked = {ids: rig.ask([PROMPT], Edition("default", 1, ids))[0] for ids in [("a",), ("b",), ("a", "b")]}
    assert asked["a", "b"].generation.reached[0].edit_id == "b"
    assert asked["a", "b"].tokens == asked["b",].tokens
    assert asked["a",].generation.reached[0].edit_id == "a"


def test_all_steps_are_taken_and_the_target_is_learned() -> None:
    rig = Rig("gpt2")
    fitted: Fitted = rig.fit("grace/paper", [rig.fit_request(PROMPT, "S")])[0]
    assert fitted.learned["steps"] == 100
