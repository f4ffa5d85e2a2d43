"""The base of all bodies, and their common types. Independent of routes and use cases."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from app.domain.edit import NAMESPACE, NAMESPACE_RULE

MAX_INPUT_CHARS = 1_000_000
MAX_PROMPT_CHARS = 100_000
MAX_TARGET_CHARS = 10_000
MAX_REASON_CHARS = 2_000
MAX_TEXTS = 100
"""The most texts of each kind in one edit: each of them is fitted or generated before the answer."""
MAX_IDS = 1_000
MOST_ANSWERS = 128
"""The most answers to one request; each of them is a sequence of its own."""
MAX_METADATA_BYTES = 64 * 2**10
MAX_METADATA_DEPTH = 16
MAX_REVISION = 2**62


class Incoming(BaseModel):
    """A body that a client sends: no unknown fields, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Outgoing(BaseModel):
    """A body that the server sends."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def like(cls, *sources: object, **given: Any) -> Self:
        """A body with the fields that are given, and each other field from the first source that has it, else its
        default. A moment such as `at` is made of `at_s`, in Unix seconds."""
        fields = {
            name: _field_of(name, field, sources) for name, field in cls.model_fields.items() if name not in given
        }
        return cls(**fields, **given)


def _field_of(name: str, field: FieldInfo, sources: Sequence[object]) -> Any:
    for source in sources:
        if hasattr(source, name):
            return getattr(source, name)
        if hasattr(source, f"{name}_s"):
            at_s = getattr(source, f"{name}_s")
            return None if at_s is None else utc(at_s)
    if field.is_required():
        raise AttributeError(f"no source has the field {name}")
    return field.get_default()


def _checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    # checked here and not at the commit, when the time of a fit would already be spent
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("holds what cannot be kept: NaN, infinity, half of a surrogate pair or endless nesting") from (
            error
        )
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"takes {size} bytes as JSON, at most {MAX_METADATA_BYTES} are kept")
    if _depth(value) > MAX_METADATA_DEPTH:
        raise ValueError(f"is nested more than {MAX_METADATA_DEPTH} levels deep")
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in inner), default=0) if isinstance(value, dict | list) else 0


Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
Texts = Annotated[list[Prompt], Field(max_length=MAX_TEXTS)]
EditId = Annotated[str, Field(min_length=1, max_length=64)]
EditIds = Annotated[list[EditId], Field(max_length=MAX_IDS)]
Reason = Annotated[str, Field(max_length=MAX_REASON_CHARS)]
Namespace = Annotated[
    str, Field(pattern=f"^{NAMESPACE.pattern}$", description=f"{NAMESPACE_RULE[0:1].upper()}{NAMESPACE_RULE[1:]}.")
]
Revision = Annotated[int, Field(ge=0, le=MAX_REVISION)]
Metadata = Annotated[dict[str, Any], AfterValidator(_checked_metadata)]


def documented(**schema: Any) -> Any:
    """A bound that OpenAPI shows and the domain checks, with a clearer message than a schema gives."""
    return Field(json_schema_extra=schema)


LATEST_S = 253_402_300_799.0
"""The end of the year 9999, where datetime ends, in Unix seconds: a later moment must not make its edit unreadable."""


def utc(at_s: float) -> datetime:
    """Unix time in seconds as a datetime, which JSON shows as ISO 8601 in UTC."""
    return datetime.fromtimestamp(min(max(at_s, 0.0), LATEST_S), UTC)
