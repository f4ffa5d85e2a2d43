"""The form of an answer, as OpenAI's clients ask for it: text, any JSON object, or JSON of a schema."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from app.api.schemas.base import Incoming

MAX_SCHEMA_CHARS = 64_000
ANY_OBJECT = json.dumps({"type": "object"})


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (ValueError, RecursionError):
        raise ValueError("holds what is no JSON: NaN, infinity or endless nesting") from None
    if size > MAX_SCHEMA_CHARS:
        raise ValueError(f"takes {size} characters as JSON, at most {MAX_SCHEMA_CHARS} are taken")
    return schema


class JSONSchema(Incoming):
    """`name` and `description` are for the client's own books, and `strict` is always on here."""

    model_config = ConfigDict(protected_namespaces=())

    name: str | None = Field(default=None, max_length=64)
    description: str | None = Field(default=None, max_length=10_000)
    body: Annotated[dict[str, Any], AfterValidator(_checked)] = Field(
        alias="schema", description="A JSON Schema. What the server cannot hold answers to is refused by name."
    )
    strict: bool | None = None


class TextFormat(Incoming):
    type: Literal["text"]


class ObjectFormat(Incoming):
    type: Literal["json_object"]


class SchemaFormat(Incoming):
    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


def schema_of(form: ResponseFormat | None) -> str | None:
    """The schema, as text, that an answer is held to; None for any text."""
    if isinstance(form, SchemaFormat):
        return json.dumps(form.json_schema.body)
    return ANY_OBJECT if isinstance(form, ObjectFormat) else None
