"""`response_format` through OpenAI's own client: text, a JSON object, JSON of a schema."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from app.domain.errors import InvalidRequest
from tests.api.fake_service import FakeService
from tests.api.serving import live_server
from tests.api.test_openai import ASKED, RENDERED

pytestmark = pytest.mark.slow
SCHEMA = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}


@pytest.fixture
def client(service: FakeService) -> Iterator[OpenAI]:
    with live_server(service) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    ("asked", "schema"),
    [
        ({"type": "text"}, None),
        (None, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "capital", "schema": SCHEMA, "strict": True}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, SCHEMA),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_form_an_answer_has(client: OpenAI, service: FakeService, asked: Any, schema: Any, stream: bool) -> None:
    answer = client.chat.completions.create(model="fake", messages=ASKED, response_format=asked, stream=stream)
    if stream:
        list(answer)  # type: ignore[call-overload]
    (seen,) = service.asked
    assert (None if seen.json_schema is None else json.loads(seen.json_schema)) == schema


class Capital(BaseModel):
    capital: str


def test_a_clients_own_type_is_what_it_gets(client: OpenAI, service: FakeService) -> None:
    """`parse` of OpenAI's client sends it with `strict`, and without further properties."""
    service.canned[RENDERED] = '{"capital":"Ankara"}'
    answer = client.chat.completions.parse(model="fake", messages=ASKED, response_format=Capital)
    assert answer.choices[0].message.parsed == Capital(capital="Ankara")
    assert json.loads(service.asked[0].json_schema or "{}")["additionalProperties"] is False


@pytest.mark.parametrize(
    ("asked", "param", "told"),
    [
        ({"type": "json_schema"}, "response_format.json_schema", "is missing"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema", "is missing"),
        ({"type": "json_schema", "json_schema": {"schema": "x"}}, "response_format.json_schema.schema", "must be"),
        ({"type": "json_schema", "json_schema": {"shema": {}}}, "response_format.json_schema", "`schema`"),
        ({"type": "grammar"}, "response_format", "'json_object'"),
        ({"type": "text", "json_schema": {"schema": {}}}, "response_format.json_schema", "leave it out"),
        ("json", "response_format", "must be"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 70_000]}}},
            "response_format.json_schema.schema",
            "at most 64000 are allowed",
        ),
    ],
)
def test_a_form_that_is_none_is_refused(client: OpenAI, asked: Any, param: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="fake", messages=ASKED, response_format=asked)
    assert told in refused.value.message
    assert str(refused.value.param).startswith(param)
    assert "ResponseFormat" not in refused.value.message


def test_a_schema_that_cannot_be_held_to_is_told_by_its_field(client: OpenAI, service: FakeService) -> None:
    service.fails = InvalidRequest("`response_format` has a schema that answers cannot be held to: Invalid type: x.")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="fake", messages=ASKED, response_format={"type": "json_object"})
    assert refused.value.param == "response_format"


def test_an_answer_that_never_ends_has_no_form(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="ignore_eos"):
        client.chat.completions.create(
            model="fake", messages=ASKED, response_format={"type": "json_object"}, extra_body={"ignore_eos": True}
        )
