"""The device that the fitter takes: the server's, or one of its own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from app.bootstrap_vllm import fitter_plan, vllm_engine
from app.config import Settings
from app.domain.errors import InvalidRequest

ON_GPU: Any = SimpleNamespace(
    device=torch.device("cuda:0"), dtype=torch.bfloat16, model=SimpleNamespace(name_or_path="a/model"), is_outline=True
)


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[call-arg]


@pytest.mark.parametrize(("given", "device"), [({}, "cuda:0"), ({"fitter_device": "cpu"}, "cpu")])
def test_the_fitter_takes_the_servers_device_unless_it_has_one_of_its_own(given: Any, device: str) -> None:
    plan = fitter_plan(settings(**given), ON_GPU, [], 1)
    assert (plan.device, plan.dtype) == (device, "bfloat16")


def test_a_device_that_is_none_or_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match="fitter_device 'gpu': use auto, cpu"):
        settings(fitter_device="gpu")
    with pytest.raises(InvalidRequest, match="cuda:99"):
        fitter_plan(settings(fitter_device="cuda:99"), ON_GPU, [], 1)


def test_a_device_for_a_process_that_there_is_not_is_refused() -> None:
    inline: Any = SimpleNamespace(is_outline=False)
    nothing: Any = None
    with pytest.raises(InvalidRequest, match="ERRATA_FITTER_DEVICE is for fits in a process of their own"):
        vllm_engine(settings(fitter_device="cpu"), inline, {}, [], nothing, 1, None, None, nothing)
