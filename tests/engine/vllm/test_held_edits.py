"""Edits as vLLM's workers hold them, and how a request names one."""

import pytest
import torch
from safetensors.torch import load

from app.domain.errors import IncompatibleEdit
from app.editors.base import Fitted, FixedAdapters
from app.engine.vllm.held_edits import HeldEdits
from app.engine.vllm.session import Change

ROWS = Fitted(learned={}, tensors={"value": torch.ones(2, 3)})
TENSORS = {"m.lora_A.weight": torch.ones(2, 3), "m.lora_B.weight": torch.ones(4, 2)}
ADAPTERS = FixedAdapters(modules=("m",), rank=2, of=lambda _: TENSORS)
LORA = Fitted(learned={}, tensors={})


def test_a_request_under_rows_says_where_they_begin_and_shares_its_cache_with_nobody_who_begins_elsewhere() -> None:
    held = HeldEdits(0)
    held.load("e1@2", (5, 6), ROWS, None)
    arguments, salt = held.naming("e1@2", 7, 1)
    assert arguments == {"extra_args": {"errata_edit": "e1@2", "errata_begun": 1}}
    assert len({salt, held.naming("e1@2", 8, 1)[1], held.naming("e1@2", 7, 0)[1]}) == 3


def test_requests_under_a_lora_share_their_cache_which_is_another_for_other_numbers() -> None:
    held = HeldEdits(2)
    change = held.load("e1@1", (5, 6), LORA, ADAPTERS)
    assert (change.do, change.arguments) == ("load_adapter", [1])
    assert {name: tensor.tolist() for name, tensor in load(change.value).items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }
    arguments, salt = held.naming("e1@1", 7, 0)
    assert arguments == {"adapter": [f"{salt}-1", 1]}
    assert held.naming("e1@1", 8, 1)[1] == salt
    other = FixedAdapters(
        modules=("m",), rank=2, of=lambda _: {**TENSORS, "m.lora_B.weight": torch.full((4, 2), 1.001)}
    )
    held.load("e2@1", (5, 6), LORA, other)
    assert held.naming("e2@1", 7, 0)[1] != salt
    assert held.drop("e1@1") == Change("drop_adapter", [1])
    assert [each.arguments for each in held.loads] == [[2]]


def test_equal_loras_have_names_of_their_own_and_one_cache() -> None:
    """vLLM takes two requests' LoRAs of one name for one, and looks for the number of the other in vain."""
    held = HeldEdits(2)
    for edit_id in ("e1@1", "e1@2"):
        held.load(edit_id, (5, 6), LORA, ADAPTERS)
    (first, salt), (second, other_salt) = (held.naming(edit_id, 7, 0) for edit_id in ("e1@1", "e1@2"))
    assert first["adapter"][0] != second["adapter"][0]
    assert salt == other_salt


def test_a_number_of_a_lora_is_given_once() -> None:
    held = HeldEdits(2)
    for number in (1, 2):
        assert held.load("e1@1", (5,), LORA, ADAPTERS).arguments == [number]
        assert held.drop("e1@1").arguments == [number]


def test_a_lora_of_a_rank_that_vllm_has_no_room_for_is_refused_and_leaves_nothing() -> None:
    held = HeldEdits(1)
    with pytest.raises(IncompatibleEdit, match=r"rank 2.*max_lora_rank"):
        held.load("e1@1", (5,), LORA, ADAPTERS)
    assert held.loads == []
