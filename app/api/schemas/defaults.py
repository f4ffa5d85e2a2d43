"""Bodies in which null asks for the default, and fields of other servers that are accepted only with the values that
change nothing. Independent of the routes."""

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from app.api.schemas.base import Incoming


class RequestDefaults(Incoming):
    """A body in which null means the default, because clients send every field that they know."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in body.items() if value is not None or name not in optional}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        described = handler.resolve_ref_schema(schema)
        for name, each in described.get("properties", {}).items():
            if name in cls.model_fields and not cls.model_fields[name].is_required():
                described["properties"][name] = _nullable(each)
        return schema


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    choices = schema.get("anyOf")
    if schema in ({}, null) or (choices and null in choices) or None in schema.get("enum", ()):
        return dict(schema)
    outer = {name: schema[name] for name in ("title", "description", "default") if name in schema}
    if choices:
        return {**schema, "anyOf": [*choices, null]}
    inner = {name: value for name, value in schema.items() if name not in outer}
    return {**outer, "anyOf": [inner, null]}


class Only:
    """The annotation of a field that is accepted with one of these values, or null, all of which ask for the default
    behaviour."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [*self._values, None]}

    def _checked(self, value: Any) -> Any:
        same = (isinstance(value, bool) == isinstance(each, bool) and value == each for each in self._values)
        if not any(same):
            raise ValueError("is not offered here: leave it out")
        return value
