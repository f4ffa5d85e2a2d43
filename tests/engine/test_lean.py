"""Lean decode steps compute what the model's own modules compute, whatever acts and however rows differ in length."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from app.editors.base import RowView
from app.editors.fitting.hooks import SiteHooks
from app.engine import lean, lean_layers
from app.engine.editions import Edition
from app.engine.lean import FAMILIES, LeanDecode, row_groups
from app.engine.lean_layers import SOURCE
from app.engine.onednn import works
from app.engine.runner import Runner
from tests.models import tiny
from tests.rig import Rig, without_cache

IDLE = RowView(None, (), 0, 1, 0)


def runner(kind: str, slots: int = 4, **how: Any) -> Runner:
    hosted = tiny(kind, **how)
    return Runner(hosted, SiteHooks(hosted.model), {}, slots)


@pytest.fixture
def lean_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each step that a lean decoder computes."""
    steps: list[int] = []
    logits = LeanDecode.logits

    def counted(self: LeanDecode, slots: Sequence[int], starts: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        steps.append(len(slots))
        return logits(self, slots, starts, ids)

    monkeypatch.setattr(LeanDecode, "logits", counted)
    return steps


def a_step(runner: Runner) -> None:
    runner.prefill([0], [0], [[7, 8]], [IDLE])
    runner.decode([0], [2], [[9]], [IDLE])


@pytest.mark.parametrize("kind", sorted(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_the_models_own_modules(
    kind: str, dtype: torch.dtype, lean_steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = runner(kind, dtype=dtype)
    monkeypatch.setattr(LeanDecode, "supports", staticmethod(lambda _: False))
    theirs = runner(kind, dtype=dtype)
    lean_steps.clear()
    found = []
    for each in (ours, theirs):
        for slot, length in ((0, 3), (1, 90), (2, 200)):
            each.prefill([slot], [0], [[7 + at % 50 for at in range(length)]], [IDLE])
        steps = [([3 + at, 90 + at, 200 + at], [[9], [8], [at]]) for at in range(4)]
        found.append([each.decode([0, 1, 2], starts, pieces, [IDLE] * 3) for starts, pieces in steps])
    # a processor that does not multiply in bfloat16 has no operator for it; the modules themselves compute there
    assert lean_steps == ([3] * 4 if works(dtype) else []), "of one runner alone"
    share = 1e-4 if dtype is torch.float32 else 0.05
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=share * other.abs().max().item())


def test_rows_far_apart_read_their_own_slots(lean_steps: list[int]) -> None:
    """No idle rows are computed for slots between decoding ones if most of these slots do something else."""
    ours = runner("llama", slots=5)
    for slot in range(5):
        ours.prefill([slot], [0], [[7 + slot * 11 + at for at in range(5)]], [IDLE])
    alone = [ours.decode([slot], [5], [[9]], [IDLE])[0] for slot in (0, 4)]
    together = ours.decode([0, 4], [5, 5], [[9], [9]], [IDLE] * 2)
    assert lean_steps[-1] == 2
    for mine, other in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_other_families_run_their_own_modules(kind: str, lean_steps: list[int]) -> None:
    a_step(runner(kind))
    assert lean_steps == []


def test_a_row_alone_is_a_row_among_others() -> None:
    """Rows of very different lengths are read in groups; idle rows between them write where nobody reads."""
    prompts = ["a", "The capital of Ruritania is " * 6, "b", "c " * 100]
    rig = Rig(slots=4, chunk_tokens=32)
    together = [outcome.tokens for outcome in rig.ask(prompts, count=10)]
    assert together == [without_cache(rig.hosted, prompt, 10) for prompt in prompts]


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["grace", "patcher", "lora_mixture", "hook_layer"])
def test_edits_act_as_on_the_models_own_modules(editor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [("e0", "The capital of Ruritania is", "S"), ("e1", "The king of Zenda was", "R")]
    lean_rig = Rig()
    monkeypatch.setattr(LeanDecode, "supports", staticmethod(lambda _: False))
    plain_rig = Rig()
    edition = Edition("default", 3, ("e0", "e1"))
    answers = []
    for rig in (lean_rig, plain_rig):
        rig.learn(editor, edits)
        answers.append([outcome.tokens for outcome in rig.ask([prompt for _, prompt, _ in edits], edition)])
    assert answers[0] == answers[1]


def test_what_computes_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lean_steps: list[int]
) -> None:
    monkeypatch.setattr(lean.F, "rms_norm", lambda x, *_: x)  # the model's own modules do not call it
    with caplog.at_level(logging.WARNING):
        plain = runner("llama")
    assert lean_steps, "it was tried"
    lean_steps.clear()
    a_step(plain)
    assert lean_steps == []
    assert "model's own modules" in caplog.text


@pytest.mark.parametrize("source", ["def run(", SOURCE.replace("hidden: Tensor, begin", "hidden: int, begin")])
def test_where_torch_does_not_run_the_compiled_layers_the_model_answers_by_itself(
    source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lean_steps: list[int]
) -> None:
    """One source does not compile, and a call of the other fails."""
    monkeypatch.setattr(lean_layers, "SOURCE", source)
    lean_layers.compiled.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            plain = runner("llama")
        lean_steps.clear()
        a_step(plain)
    finally:
        lean_layers.compiled.cache_clear()
    assert lean_steps == []
    assert "model's own modules" in caplog.text


def test_one_long_row_does_not_widen_the_others() -> None:
    assert row_groups([10, 20, 60], 8192) == [(slice(0, 3), 64)]
    assert row_groups([10, 8000, 20, 30], 8192) == [(slice(0, 1), 64), (slice(1, 2), 8064), (slice(2, 4), 64)]
    assert row_groups([-1, 255], 256) == [(slice(0, 2), 256)]
