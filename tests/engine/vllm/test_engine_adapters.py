"""The engine over vLLM without vLLM: edits that are LoRAs, and answers by a schema."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from app.domain.errors import IncompatibleEdit, InvalidRequest
from app.editors.base import Fitted
from app.editors.lora_mixture.adapter_files import CONFIG, WEIGHTS
from app.engine.editions import Edition
from app.engine.vllm.session import Change
from tests.engine.vllm.test_engine import EDITED, TARGET, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def lora(bench: Bench, prompt: str, **more: Any) -> Fitted:
    """An edit of made-up LoRAs, its page's only one."""
    request = bench.rig.fit_request(prompt, TARGET)
    read_adapter = bench.rig.editors["lora_mixture"].extras.read_adapter
    adapters = bench.rig.editors["lora_mixture"].extras.fixed_adapters
    assert read_adapter is not None
    assert adapters is not None
    rank = more.get("rank", adapters.rank)
    with TemporaryDirectory() as folder:
        tensors = {
            f"base_model.model.{module}.lora_{side}.weight": torch.ones(shape)
            for module in adapters.modules
            for side, shape in (("A", (rank, 64)), ("B", (32, rank)))
        }
        save_file(tensors, Path(folder) / WEIGHTS)
        (Path(folder) / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
        return bench.engine.with_scope("lora_mixture", read_adapter(request, Path(folder)), request)


def test_an_edit_that_is_a_lora_is_one_of_vllms_and_its_request_names_it() -> None:
    bench = Bench(adapter_rank=8)
    other = "The colour of the sea is"
    bench.engine.load("e2@1", "lora_mixture", lora(bench, other))
    _, change = bench.session.changes
    tensors = load(change.value)
    assert (change.do, change.arguments) == ("load_adapter", [1])
    assert {name.split(".")[-2] for name in tensors} == {"lora_A", "lora_B"}
    assert {min(tensor.shape) for tensor in tensors.values()} == {8}
    both = Edition("default", 2, ("e1@1", "e2@1"))
    bench.add(both)
    bench.add(both, prompt=other)
    (_, _, rows, _, _), (_, _, arguments, salt, _) = bench.session.added
    assert "adapter" not in rows
    assert rows["extra_args"] == {"errata_edit": "e1@1", "errata_begun": 0}
    assert "extra_args" not in arguments
    assert arguments["adapter"] == [f"{salt}-1", 1]
    bench.engine.drop("e2@1")
    assert bench.session.changes[2:] == [Change("drop_adapter", [1])]


def test_a_lora_of_a_rank_that_vllm_has_no_room_for_is_refused_and_leaves_nothing() -> None:
    bench = Bench(adapter_rank=8)
    fitted = lora(bench, "The colour of the sea is", rank=16)
    with pytest.raises(IncompatibleEdit, match=r"rank 16.*max_lora_rank"):
        bench.engine.load("e2@1", "lora_mixture", fitted)
    assert "e2@1" not in bench.engine.editions
    assert len(bench.session.changes) == 1


SCHEMA = '{"enum": ["yes", "no"]}'


def test_an_answer_by_a_schema_is_held_to_it_by_vllm_and_an_edit_that_does_not_fit_defers(bench: Bench) -> None:
    outcome = bench.add(EDITED, json_schema=SCHEMA, explain=True)
    ((_, _, arguments, salt, _),) = bench.session.added
    assert arguments["structured_outputs"]["grammar"].startswith("start: ")
    assert "extra_args" not in arguments
    assert salt is None
    bench.tokens(1, [*bench.rig.hosted.tokenizer('"no"').input_ids, 0])
    assert outcome.generation.text == '"no"'
    assert outcome.generation.nearest is not None
    assert "does not fit the schema" in outcome.generation.nearest.why


def test_a_token_that_the_schema_does_not_allow_ends_the_request_with_an_error(bench: Bench) -> None:
    """vLLM ends an answer in its middle if it gives up a schema that asks for too much."""
    outcome = bench.add(json_schema=SCHEMA)
    bench.tokens(1, [0])
    assert isinstance(outcome.end, InvalidRequest)
    assert bench.session.aborted == [1]
