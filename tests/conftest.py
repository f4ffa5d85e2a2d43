"""Tiny random models of every architecture, and a tokenizer made on the spot: no test needs a hub or a real model."""

import gc
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from app.config import DEMO_MODEL, Settings
from app.engine.gguf import unpacked
from app.engine.source import find_source
from tests.models import TINY

# examples may take as long as a busy machine needs; in CI two runs draw the same
settings.register_profile(
    "errata",
    deadline=None,
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("errata")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics are of less text than they would be, kept for the run, and not where the user keeps theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERRATA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ERRATA_CORPUS_TOKENS", "30000")
        patch.setenv("OMP_NUM_THREADS", "1")  # of servers that tests start: another worker is at its tests meanwhile
        yield


@pytest.fixture(scope="session")
def smollm2(_cache: None) -> Path:
    """A real chat model, unpacked once into the cache of the run."""
    file = find_source("smollm2", DEMO_MODEL).gguf
    assert file is not None
    return unpacked(file, Settings().cache_dir, "float32")


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1)  # the models are tiny, and two workers share the machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {
        "gpu": (not torch.cuda.is_available(), "needs a CUDA device"),
        "vllm": ("ERRATA_VLLM_PYTHON" not in os.environ, "needs a Python with vLLM in ERRATA_VLLM_PYTHON"),
        "ray": (importlib.util.find_spec("ray") is None, "needs ray[serve]: pip install '.[ray]'"),
    }
    for marker, (lacks, reason) in lacking.items():
        for item in items:
            if lacks and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Collect garbage less often: what was imported and collected lives as long as the process, and each test makes an
    app or a model of its own."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(params=sorted(TINY))
def architecture(request: pytest.FixtureRequest) -> str:
    """Every architecture that `editors/fitting/sites.py` names."""
    return str(request.param)
