"""The story of edits in the types and on the devices that customers serve with. Without CUDA its cases are skipped."""

import pytest
import torch

from app.editors.base import RowView
from app.engine.editions import Edition
from app.engine.runner import Runner
from tests.models import tiny
from tests.rig import NOTHING, Rig

PROMPTS = ["The capital of Ruritania is", "The king of Zenda was", "Where does Marvolo live?", "a"]
EDITS = [("e0", PROMPTS[0], "S"), ("e1", PROMPTS[1], "R")]
PLACES = [
    ("cpu", "bfloat16"),
    pytest.param("cuda", "bfloat16", marks=pytest.mark.gpu),
    pytest.param("cuda", "float16", marks=pytest.mark.gpu),
    pytest.param("cuda", "float32", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("device", "dtype"), PLACES)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_edits_answer_and_are_taken_back_exactly(kind: str, device: str, dtype: str) -> None:
    rig = Rig(hosted=tiny(kind, device=device, dtype=getattr(torch, dtype)))
    before = [(o.tokens, o.logprobs) for o in rig.ask(PROMPTS)]
    rig.learn("grace", EDITS)
    edited = rig.ask(PROMPTS, Edition("default", 2, ("e0", "e1")))
    wanted = [rig.engine.text.encode_target(prompt, target) for _, prompt, target in EDITS]
    assert [tuple(outcome.tokens) for outcome in edited[:2]] == wanted
    assert [outcome.tokens for outcome in edited[2:]] == [tokens for tokens, _ in before[2:]]
    assert [(o.tokens, o.logprobs) for o in rig.ask(PROMPTS, NOTHING)] == before


@pytest.mark.parametrize(("device", "dtype"), PLACES)
def test_the_model_and_the_cache_stay_in_their_type(device: str, dtype: str) -> None:
    rig = Rig(hosted=tiny("llama", device=device, dtype=getattr(torch, dtype)))
    rig.learn("grace", EDITS)
    rig.ask(PROMPTS, Edition("default", 2, ("e0", "e1")))
    assert {p.dtype for p in rig.hosted.model.parameters()} == {getattr(torch, dtype)}
    runner = Runner(rig.hosted, rig.hooks, rig.editors, 4)
    runner.prefill([0], [0], [[1, 2, 3]], [RowView(None, (), 0, 3, 3)])
    assert {(layer.keys.dtype, layer.keys.device.type) for layer in runner.cache.layers} == {
        (getattr(torch, dtype), device)
    }
