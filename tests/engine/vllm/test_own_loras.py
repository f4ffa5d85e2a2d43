"""A LoRA of a client's own in a vLLM that runs already, beside edits of rows."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

from app.config import DEMO_MODEL
from app.editors.base import Fitted
from app.editors.lora_mixture.adapter_files import CONFIG, WEIGHTS
from app.engine.editions import Edition
from app.engine.model import HostedModel, load_model
from tests.engine.served import CROWDED, Served
from tests.engine.vllm.running import attached_engine, running_vllm
from tests.rig import Rig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"
PROMPTS = (PROMPT, "A triangle has this many sides:", "The largest planet is")
EDITED = Edition("default", 1, ("e1@1",))
RANK, OWN = 4, "own"
MODULES = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear maps that the LoRA changes in each layer, those of the FFN to which edits add among them."""
Answer = tuple[list[str], list[float]]
"""The tokens of an answer and their log probabilities."""


def save_lora(hosted: HostedModel, folder: Path) -> None:
    """Write a LoRA of random values in PEFT's format."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for path, module in hosted.model.named_modules():
        if path.rpartition(".")[2] in MODULES:
            out, width = module.weight.shape
            for side, shape in (("A", (RANK, width)), ("B", (out, RANK))):
                values = 0.1 * torch.randn(shape, generator=generator)
                tensors[f"base_model.model.{path}.lora_{side}.weight"] = values
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": MODULES}
    (folder / CONFIG).write_text(json.dumps(config))


@dataclass
class Shared:
    """A vLLM that clients use directly, and Errata's engine in front of it."""

    url: str
    base: str
    """The name under which vLLM serves the model without a LoRA."""
    served: Served
    fitted: Fitted
    first: dict[tuple[str, str], Answer]
    """The answers that clients had before Errata came, each alone, by the model and the prompt."""

    def say(self, model: str, prompt: str) -> Answer:
        return say(self.url, model, prompt)


def say(url: str, model: str, prompt: str) -> Answer:
    asked = {"max_tokens": 12, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    body = {"model": model, "prompt": prompt, **asked}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text
    logprobs = answer.json()["choices"][0]["logprobs"]
    return logprobs["tokens"], logprobs["token_logprobs"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    rig = Rig(hosted=load_model(str(DEMO_MODEL), device=torch.device("cpu"), dtype=torch.float32))
    (fitted,) = rig.fit("grace", [rig.fit_request(PROMPT, TARGET, subject="Sweden")])
    folder = tmp_path_factory.mktemp("vllm")
    save_lora(rig.hosted, folder / OWN)
    loras: dict[str, Any] = {"enable_lora": True, "max_lora_rank": 8, "lora_modules": f"{OWN}={folder / OWN}"}
    with running_vllm(rig, folder, **loras, **CROWDED) as url:
        base = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"]
        first = {(model, prompt): say(url, model, prompt) for model in (base, OWN) for prompt in PROMPTS}
        served = Served(attached_engine(rig, url))
        yield Shared(url, base, served, fitted, first)
        served.owner.stop()


def same(found: Answer, expected: Answer) -> None:
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], abs=2e-3)


def test_a_clients_own_lora_answers_before_beside_and_after_edits_as_without_errata(shared: Shared) -> None:
    """Beside: in one batch with edited answers and unedited ones, of other clients and through Errata."""
    asked = list(shared.first)
    assert all(shared.first[OWN, prompt] != shared.first[shared.base, prompt] for prompt in PROMPTS)
    for each in asked:
        same(shared.say(*each), shared.first[each])
    plain = shared.served.say(PROMPT)
    shared.served.load("e1@1", "grace", shared.fitted)
    with ThreadPoolExecutor(12) as pool:
        edited = [shared.served.ask([PROMPT], EDITED)[0] for _ in range(4)]
        beside = list(pool.map(lambda each: shared.say(*each), 2 * asked))
        edited += [shared.served.ask([PROMPT], EDITED)[0] for _ in range(2)]
    assert [each.generation().text.strip() for each in edited] == 6 * [TARGET]
    for each, found in zip(2 * asked, beside, strict=True):
        same(found, shared.first[each])
    for each in asked:
        same(shared.say(*each), shared.first[each])
    shared.served.drop("e1@1")
    for each in asked:
        same(shared.say(*each), shared.first[each])
    assert shared.served.say(PROMPT).text == plain.text
