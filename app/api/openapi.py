"""Builds the OpenAPI description: each route with the errors it may answer with, as problems. Depends on the table of
errors, not on the routes."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api import openai_errors
from app.api.errors import HTTP_TITLES, PROBLEM_JSON, problem, row_of
from app.api.gate import right_of
from app.api.middleware import REQUEST_ID, REVISION
from app.api.schemas.server import Problem
from app.domain.errors import ErrataError, Forbidden, InvalidRequest, RateLimited, Unauthenticated
from app.domain.generation import Generation

Responses = dict[int | str, dict[str, Any]]
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""The headers of a stream, which tell proxies not to buffer it."""
EDITS, NOT_GIVEN = "X-Errata-Edits", "X-Errata-Not-Given"
EDITS_HEADERS = {
    EDITS: {"schema": {"type": "string"}, "description": "Ids of the edits that answered, if any did. Not in streams."},
    NOT_GIVEN: {
        "schema": {"type": "string"},
        "description": "Ids of the edits, if any, whose scope holds a prompt but whose target was not said. Not in "
        "streams.",
    },
}
"""The headers of a whole answer. A stream sends its headers before the answer is known; its last event has the same
fields."""
STREAMS = frozenset({"/generate_stream"})
"""The routes that write server-sent events themselves."""
_SCHEMA = {"$ref": "#/components/schemas/Problem"}
HEADERS = {
    REQUEST_ID: {"schema": {"type": "string"}, "description": "The request's own id if well formed, else a new one."},
    REVISION: {"schema": {"type": "integer"}, "description": "The newest revision applied when it was answered."},
}


def raises(*kinds: type[ErrataError], body: bool = False) -> Responses:
    """The errors that a route may answer with. Every route may raise InvalidRequest; one with a body may also answer
    408 and 413."""
    responses: dict[int, dict[str, Any]] = {}
    for kind in (*kinds, InvalidRequest):
        status, name, title = row_of(kind)
        example = problem(status, name, title, "What is wrong, and what to do about it.")
        responses.setdefault(status, {})[name] = {"summary": title, "value": example}
    if body:
        for status, title in HTTP_TITLES.items():
            slug = title.lower().replace(" ", "-")
            responses[status] = {slug: {"summary": title, "value": problem(status, slug, title, f"{title}.")}}
    return {
        status: {
            "description": "; ".join(example["summary"] for example in examples.values()),
            "content": {PROBLEM_JSON: {"schema": _SCHEMA, "examples": examples}},
        }
        for status, examples in sorted(responses.items())
    }


def edits_headers(generations: Iterable[Generation]) -> dict[str, str]:
    """The values of EDITS_HEADERS; empty ones are left out."""
    every = list(generations)
    headers = {
        EDITS: dict.fromkeys(hit.edit_id for each in every for hit in each.hits),
        NOT_GIVEN: dict.fromkeys(hit.edit_id for each in every for hit in each.not_given),
    }
    return {name: ", ".join(ids) for name, ids in headers.items() if ids}


def leads_to(**operations: str) -> dict[str, Any]:
    """OpenAPI links from an answer that has an edit's `id`: link name -> id of the operation that takes it."""
    return {
        name: {"operationId": operation, "parameters": {"edit_id": "$response.body#/id"}}
        for name, operation in operations.items()
    }


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A replacement for `app.openapi` that adds the problem's schema, status 500, and the headers of every answer."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            schema["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "Required once the first key was created."}
            }
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    if right_of(method.upper(), path) is not None:
                        operation["responses"] = copy.deepcopy(GATE) | operation["responses"]
                        operation["security"] = [{"key": []}, {}]
                    if path.startswith(openai_errors.PREFIX):
                        operation["responses"] = _as_openai(operation["responses"])
                    if path in STREAMS:
                        _as_events(operation["responses"]["200"])
                    _complete(operation["responses"])
            app.openapi_schema = schema
        return app.openapi_schema

    return openapi


GATE = {str(status): response for status, response in raises(Unauthenticated, Forbidden, RateLimited).items()}
"""The errors that the gate may answer with before any route runs."""


def _as_events(response: dict[str, Any]) -> None:
    """Describe the answer as events, each with `data` of the model that the route names."""
    schema = response["content"].pop("application/json")["schema"]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    response["content"][EVENT_STREAM] = {
        "itemSchema": {"type": "object", "properties": {"data": data}, "required": ["data"]}
    }


def _as_openai(responses: dict[str, Any]) -> dict[str, Any]:
    """The same errors in the form used under /v1."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIProblem"}}}
    kept = {status: response for status, response in responses.items() if status < "400"}
    for status, response in responses.items():
        if status >= "400":
            kept["400" if status == "422" else status] = {"description": response["description"], "content": content}
    return {**kept, "500": {"description": "The server failed", "content": content}}


def _complete(responses: dict[str, Any]) -> None:
    responses.setdefault("500", {"description": "The server failed", "content": {PROBLEM_JSON: {"schema": _SCHEMA}}})
    for response in responses.values():
        response["headers"] = {**HEADERS, **response.get("headers", {})}
