"""A fit whose base states come from vLLM, prompts in chunks, beside answers: the same as in the whole model."""

import os
import queue
from typing import Any

import pytest
import torch

from app.config import DEMO_MODEL
from app.domain.generation import Generation, GenerationParameters
from app.engine.editions import Edition
from app.engine.fitter.fitter import Fitter
from app.engine.model import load_model, load_outline
from app.engine.owner import EngineOwner
from app.engine.vllm.engine import ADAPTERS, VllmEngine
from app.engine.vllm.engine_arguments import vllm_arguments
from app.engine.vllm.process import VllmProcess
from app.engine.vllm.supervisor import VllmSupervisor
from tests.engine.fitter.test_fitter import PLAN
from tests.rig import Rig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"
LONG = "Question: Which town is the seat of the king and of the parliament of Sweden, far up in the north?\nAnswer:"


def test_a_fit_learns_from_vllms_states_what_it_learns_in_the_whole_model() -> None:
    given: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    rig = Rig(hosted=load_model(str(DEMO_MODEL), **given))
    requests = [rig.fit_request(PROMPT, TARGET), rig.fit_request(LONG, TARGET)]
    expected = rig.fit("grace", requests)
    outline = load_outline(str(DEMO_MODEL), **given)
    chunks = {"enforce_eager": True, "max_num_batched_tokens": 16, "enable_chunked_prefill": True, "block_size": 32}
    adapters = rig.editors[ADAPTERS].extras.fixed_adapters
    assert adapters is not None
    arguments = vllm_arguments(outline, rig.editors["grace"].sites[0], 8, 20_000, None, adapters, chunks)
    fitter = Fitter(PLAN)
    fitter.begin()
    vllm = VllmSupervisor(lambda: VllmProcess(os.environ["ERRATA_VLLM_PYTHON"], arguments), deadline_s=600)
    engine = VllmEngine(
        outline, rig.editors, rig.engine.scope, slots=8, queue_limit=64, fit_share=0.5, fitter=fitter, vllm=vllm
    )
    owner = EngineOwner(engine, 1)
    owner.start()
    try:
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        edition = Edition("default", 0, ())
        long = GenerationParameters(max_new_tokens=200, ignore_eos=True)
        asked = engine.prepare(PROMPT, edition)
        owner.generate([(PROMPT, long)], edition, 0, [arrived.put], [asked], 0.0).result(60)
        found = owner.fit("grace", requests, edition).result(300)
        for one, other in zip(found, expected, strict=True):
            assert one.learned["converged"]
            assert one.learned["steps"] == other.learned["steps"]
            difference = one.tensors["value"] - other.tensors["value"]
            assert difference.norm() < 0.01 * other.tensors["value"].norm()
        while not isinstance(last := arrived.get(timeout=300), Generation):
            assert not isinstance(last, Exception), last
        assert len(last.tokens) == 200
    finally:
        owner.stop()
    assert fitter.pid is None
