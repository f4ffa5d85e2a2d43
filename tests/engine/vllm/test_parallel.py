"""Edits over several workers of vLLM, which share each layer or have some of the layers each: as in one process."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.generation import Generation
from app.engine.editions import Edition
from app.engine.model import load_model
from tests.engine.served import CROWDED, Served, logprobs_of, tokens_of, vllm_engine
from tests.rig import Rig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
EDITS = [("The capital of Sweden is", "Uppsala, of all places"), ("The capital of Norway is", "Bergen by the sea")]
PLAIN = ("A triangle has this many sides:", "The largest planet is")
BOTH = Edition("default", 2, ("e0@1", "e1@1"))
ONE = Edition("default", 3, ("e1@1",))
"""The edition after a rollback of the first edit."""
STAGES = {"pipeline_parallel_size": 2, **CROWDED}
WAYS: dict[str, tuple[dict[str, Any], str | None]] = {
    "each layer shared": ({"tensor_parallel_size": 2}, None),
    "edits in the first stage": (STAGES, "5,2"),
    "edits in the last stage": (STAGES, "2,5"),
}
"""Arguments of vLLM, and the layers of each stage; edits act in layer 3 of 7."""


@pytest.fixture(scope="module", params=WAYS, ids=WAYS)
def engines(request: pytest.FixtureRequest) -> Iterator[tuple[Served, Served]]:
    """The engine over transformers, and that over several workers of vLLM."""
    arguments, stages = WAYS[request.param]
    rig = Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))
    fitted = rig.fit("grace", [rig.fit_request(*edit) for edit in EDITS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else each worker asks for a NUMA node of its own
        if stages is not None:
            patch.setenv("VLLM_PP_LAYER_PARTITION", stages)
        one, several = Served(rig.engine), Served(vllm_engine(Rig(hosted=rig.hosted), **arguments))
    for index, each in enumerate(fitted):
        for engine in (one, several):
            engine.load(f"e{index}@1", "grace", each)
    yield one, several
    several.owner.stop()
    one.owner.stop()


def same(found: Generation, expected: Generation) -> None:
    assert tokens_of(found) == tokens_of(expected)
    assert logprobs_of(found) == pytest.approx(logprobs_of(expected), abs=2e-3)


def test_edits_act_once_beside_requests_without_one_and_no_more_after_a_rollback(
    engines: tuple[Served, Served],
) -> None:
    """More requests than slots, and over stages prompts in chunks, cached beginnings and preemption."""
    one, several = engines
    prompts = [prompt for prompt, _ in EDITS] + list(PLAIN)
    expected = {prompt: one.say(prompt, BOTH) for prompt in prompts}
    assert [expected[prompt].text.strip() for prompt, _ in EDITS] == [target for _, target in EDITS]
    sent = [(prompt, several.ask([prompt], BOTH)[0]) for prompt in 3 * prompts]
    for prompt, each in sent:
        same(each.generation(), expected[prompt])
    rolled_back = EDITS[0][0]
    bare = several.say(rolled_back, ONE)
    same(bare, one.say(rolled_back, ONE))
    assert not bare.hits
    same(several.say(EDITS[1][0], ONE), expected[EDITS[1][0]])
