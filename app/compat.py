"""Isolates differences between the supported versions of transformers; no other module knows which one is installed."""

from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in {each.name for each in fields(CausalLMOutputWithPast)} else "past_key_values"
"""Name under which models take their cache: `cache` from 5.24 on, where `past_key_values` is deprecated."""


def cache_argument(cache: Cache) -> dict[str, Any]:
    """Keyword argument that passes a model its cache."""
    return {CACHE: cache}
