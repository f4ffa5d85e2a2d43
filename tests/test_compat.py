"""Models take their cache under the name that the installed transformers gives it."""

import inspect

import pytest
import torch
from transformers import DynamicCache

from app.compat import CACHE, cache_argument
from tests.models import TINY, tiny


@pytest.mark.parametrize("kind", TINY)
def test_every_architecture_takes_its_cache_by_that_name(kind: str) -> None:
    model = tiny(kind).model
    assert CACHE in inspect.signature(type(model).forward).parameters
    cache = DynamicCache()
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2, 3]]), **cache_argument(cache), use_cache=True)
    assert cache.get_seq_length() == 3
