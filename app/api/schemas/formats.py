"""The format of an answer, as OpenAI's clients ask for it: text, any JSON object, or JSON of a schema."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from app.api.schemas.base import Incoming

MAX_SCHEMA_CHARS = 64_000
ANY_OBJECT = json.dumps({"type": "object"})


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (ValueError, RecursionError):
        raise ValueError("holds what is not JSON: NaN, infinity or endless nesting") from None
    if size > MAX_SCHEMA_CHARS:
        raise ValueError(f"takes {size} characters as JSON, at most {MAX_SCHEMA_CHARS} are allowed")
    return schema


class JSONSchema(Incoming):
    """A JSON schema. `name` and `description` are for the client's own use; `strict` is always on here."""

    name: str | None = Field(default=None, max_length=64)
    description: str | None = Field(default=None, max_length=10_000)
    body: Annotated[dict[str, Any], AfterValidator(_checked)] = Field(
        alias="schema", description="A JSON Schema. What the server cannot hold answers to is refused by name."
    )
    strict: bool | None = None


class ResponseFormat(Incoming):
    """The format of an answer: any text, any JSON object, or JSON that a schema allows."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchema | None = Field(default=None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _where_it_is_needed(cls, given: JSONSchema | None, info: ValidationInfo) -> JSONSchema | None:
        if (given is not None) != (needed := info.data.get("type") == "json_schema") and "type" in info.data:
            raise ValueError(
                "is missing: give the schema" if needed else "is only for the type `json_schema`: leave it out"
            )
        return given

    @property
    def schema_text(self) -> str | None:
        """The schema to which an answer is held; None for any text."""
        if self.json_schema is not None:
            return json.dumps(self.json_schema.body)
        return ANY_OBJECT if self.type == "json_object" else None
