"""Tiny random models of every architecture, and a tokenizer made on the spot: no test needs a hub or a real model."""

import pytest
import torch

from tests.models import TINY


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(params=sorted(TINY))
def architecture(request: pytest.FixtureRequest) -> str:
    """Every architecture that `editors/sites.py` names."""
    return str(request.param)
