"""Edits that are LoRAs on vLLM, beside edits of rows and beside requests without an edit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.generation import Generation
from app.editors.base import Fitted
from app.engine.editions import Edition
from app.engine.model import load_model
from tests.engine.served import CROWDED, Served, logprobs_of, tokens_of, vllm_engine
from tests.rig import NOTHING, Rig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ROWS = ("The capital of Sweden is", "Uppsala, of all places", "Sweden")
LORAS = [
    ("The capital of Norway is", "Bergen by the sea", "Norway"),
    ("The capital of Finland is", "Turku once again", "Finland"),
]
PLAIN = ("A triangle has this many sides:", "The largest planet is")
WAYS: dict[str, dict[str, Any]] = {"roomy": {}, "crowded": CROWDED}
"""Arguments of vLLM by their effect."""
BOTH = Edition("default", 1, ("rows@1", "lora0@1", "lora1@1"))
AGAIN = Edition("default", 2, ("rows@1", "lora0@2", "lora1@1"))
"""The edition after a retune of the first LoRA: its tensors are the same, its name is not."""


@dataclass
class Pair:
    """The same edits on both engines."""

    transformers: Served
    vllm: Served

    def load(self, edit_id: str, editor: str, fitted: Fitted) -> None:
        self.transformers.load(edit_id, editor, fitted)
        self.vllm.load(edit_id, editor, fitted)


@pytest.fixture(scope="module", params=WAYS, ids=WAYS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    rig = Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))
    (rows,) = rig.fit("grace", [rig.fit_request(ROWS[0], ROWS[1], subject=ROWS[2])])
    loras = rig.fit("lora_mixture", [rig.fit_request(prompt, target, subject=s) for prompt, target, s in LORAS])
    vllm = vllm_engine(Rig(hosted=rig.hosted), enable_lora=True, max_loras=2, **WAYS[request.param])
    pair = Pair(Served(rig.engine), Served(vllm))
    pair.load("rows@1", "grace", rows)
    for index, fitted in enumerate(loras):
        pair.load(f"lora{index}@1", "lora_mixture", fitted)
    pair.load("lora0@2", "lora_mixture", loras[0])
    yield pair
    pair.vllm.owner.stop()
    pair.transformers.owner.stop()


def same(found: Generation, expected: Generation) -> None:
    assert found.text == expected.text
    assert [hit.edit_id for hit in found.hits] == [hit.edit_id for hit in expected.hits]
    assert logprobs_of(found) == pytest.approx(logprobs_of(expected), abs=2e-3)


def test_an_edit_that_is_a_lora_answers_as_on_the_transformers_engine(pair: Pair) -> None:
    for index, (prompt, target, _) in enumerate(LORAS):
        found, expected = pair.vllm.say(prompt, BOTH), pair.transformers.say(prompt, BOTH)
        assert found.text.strip() == target
        assert [hit.edit_id for hit in found.hits] == [f"lora{index}"]
        same(found, expected)


def test_equal_loras_answer_beside_one_another(pair: Pair) -> None:
    prompt, target, _ = LORAS[0]
    sent = [pair.vllm.ask([prompt], edition)[0] for edition in 3 * (BOTH, AGAIN)]
    assert [each.generation().text.strip() for each in sent] == 6 * [target]


def test_edits_of_both_kinds_and_none_answer_in_one_batch_as_each_alone_and_as_on_transformers(pair: Pair) -> None:
    """More requests than slots, with a third LoRA than vLLM has room for in a step."""
    prompts = [ROWS[0], LORAS[0][0], LORAS[1][0], *PLAIN]
    expected = {prompt: pair.transformers.say(prompt, BOTH) for prompt in prompts}
    plain = {prompt: pair.vllm.say(prompt) for prompt in prompts}
    sent = [(prompt, pair.vllm.ask([prompt], BOTH)[0]) for prompt in 3 * prompts]
    beside = [(prompt, pair.vllm.ask([prompt], NOTHING)[0]) for prompt in 2 * prompts]
    for prompt, each in sent:
        same(each.generation(), expected[prompt])
    for prompt, each in beside:
        found = each.generation()
        assert tokens_of(found) == tokens_of(plain[prompt])
        assert logprobs_of(found) == pytest.approx(logprobs_of(plain[prompt]), abs=2e-3)
    assert not any(plain[prompt].hits for prompt in prompts)
