"""Differences between the supported versions of transformers; no other module knows which one is installed."""

from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in {each.name for each in fields(CausalLMOutputWithPast)} else "past_key_values"
"""The name under which models take their cache: `cache` from 5.24 on, where the older name is deprecated."""


def cache_argument(cache: Cache) -> dict[str, Any]:
    """The keyword argument that hands a model its cache."""
    return {CACHE: cache}
