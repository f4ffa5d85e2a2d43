"""A version of vLLM that lacks a name which Errata reads is refused by it at the start. Stand-ins lack one each."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.engine.vllm.inside.errata_vllm import names
from tests.engine.vllm import stand_ins
from tests.engine.vllm.stand_ins import over_stand_ins


@pytest.fixture
def inner() -> Iterator[Any]:
    with over_stand_ins("inner") as module:
        yield module


@pytest.fixture
def front() -> Iterator[Any]:
    with over_stand_ins("front") as module:
        yield module


def having(paths: Sequence[str]) -> Any:
    """An object with these names."""
    made = SimpleNamespace()
    for path in paths:
        owner = made
        for name in path.split("."):
            if not hasattr(owner, name):
                setattr(owner, name, SimpleNamespace())
            owner = getattr(owner, name)
    return made


def one_left_out(paths: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each path, and all that do not lie below it or above it."""
    return [(path, [each for each in paths if each != path and not path.startswith(f"{each}.")]) for path in paths]


@pytest.mark.parametrize(("left_out", "rest"), one_left_out(names.RUNNER_NAMES))
def test_a_model_runner_that_lacks_a_name_is_refused_by_it(inner: Any, left_out: str, rest: list[str]) -> None:
    inner.check_runner(having(names.RUNNER_NAMES))
    with pytest.raises(names.VllmRefusal, match=rf"vLLM 0\.0 lacks {left_out} in its model runner .* tested with"):
        inner.check_runner(having(rest))


@pytest.mark.parametrize(("left_out", "rest"), one_left_out(names.CONFIG_NAMES))
def test_settings_that_lack_a_name_are_refused_by_it(inner: Any, left_out: str, rest: list[str]) -> None:
    with pytest.raises(names.VllmRefusal, match=f"lacks {left_out} in its settings"):
        inner.check_config(having(rest))


@pytest.mark.parametrize("left_out", names.REQUEST_NAMES)
def test_a_state_of_requests_that_lacks_a_name_is_refused_before_there_is_one(
    inner: Any, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    monkeypatch.setattr(inner, "CachedRequestState", without(left_out, names.REQUEST_NAMES))
    with pytest.raises(names.VllmRefusal, match=f"lacks {left_out} in a request's Made"):
        inner.check_runner(having(names.RUNNER_NAMES))


def without(left_out: str, all_names: Sequence[str]) -> type:
    """A class whose objects have all names but one."""
    return type("Made", (), {each: None for each in all_names if each != left_out})


def test_parameters_that_lack_a_name_are_refused_by_it(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "SamplingParams", without("extra_args", names.PARAMETER_NAMES))
    with pytest.raises(names.VllmRefusal, match="lacks extra_args in a request's Made"):
        inner.check_runner(having(names.RUNNER_NAMES))


def test_a_runner_that_speculates_without_a_drafter_or_its_sampler_is_refused(
    inner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = SimpleNamespace(device=torch.device("cpu"), vllm_config=SimpleNamespace(speculative_config="any"))
    with pytest.raises(names.VllmRefusal, match="lacks drafter in its model runner"):
        inner.serve_drafts(runner, lambda _: ())
    runner.drafter = object()
    monkeypatch.setattr(inner, "rejection_sampler", SimpleNamespace())
    with pytest.raises(names.VllmRefusal, match="lacks expand_batch_to_tokens in its rejection sampler"):
        inner.serve_drafts(runner, lambda _: ())


def test_a_later_stage_whose_model_makes_no_buffers_is_refused(inner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "get_pp_group", lambda: SimpleNamespace(is_first_rank=False))
    runner = SimpleNamespace(intermediate_tensors=None, get_model=SimpleNamespace)
    with pytest.raises(names.VllmRefusal, match="lacks make_empty_intermediate_tensors in its model"):
        inner.receive_states(runner)


def test_settings_of_a_drafter_that_lack_a_name_are_refused_by_it(inner: Any) -> None:
    with pytest.raises(names.VllmRefusal, match=r"lacks speculative_config\.num_speculative_tokens in its settings"):
        inner.Lookahead(having(["speculative_config"]))


@pytest.mark.parametrize(
    ("kind", "left_out", "all_names"),
    [
        *(("AsyncLLM", each, names.ENGINE_NAMES) for each in names.ENGINE_NAMES),
        *(("CompletionOutput", each, names.OUTPUT_NAMES) for each in names.OUTPUT_NAMES),
        *(("Logprob", each, names.LOGPROB_NAMES) for each in names.LOGPROB_NAMES),
        ("RequestOutput", "outputs", names.OUTPUTS_NAMES),
    ],
)
def test_an_engine_that_lacks_a_name_is_refused_before_it_loads_the_model(
    front: Any, monkeypatch: pytest.MonkeyPatch, kind: str, left_out: str, all_names: Sequence[str]
) -> None:
    assert front.start_engine({"model": "m"}).load_format == "errata"
    monkeypatch.setattr(stand_ins.AsyncLLM, "from_engine_args", lambda _: pytest.fail("it loads the model"))
    monkeypatch.setattr(front, kind, without(left_out, all_names))
    with pytest.raises(names.VllmRefusal, match=f"lacks {left_out} in "):
        front.start_engine({"model": "m"})
