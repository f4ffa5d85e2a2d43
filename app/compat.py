"""Isolates differences between the supported versions of transformers; no other module knows which one is installed."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in {each.name for each in fields(CausalLMOutputWithPast)} else "past_key_values"
"""Name under which models take their cache: `cache` from 5.24 on, where `past_key_values` is deprecated."""


def cache_argument(cache: Cache) -> dict[str, Any]:
    """Keyword argument that passes a model its cache."""
    return {CACHE: cache}


def names_in_files(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Map the names of a model's weights to those under which files hold them, given all names in the files. A weight
    that transformers computes of several in the files is left out."""
    transforms = get_model_conversion_mapping(model)
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    renamings: Any = [each for each in transforms if not isinstance(each, WeightConverter)]
    own = model.state_dict()
    names_by_file: dict[str, str] = {}
    for name in names:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if converted is None:
            names_by_file[renamed] = name
    return names_by_file
