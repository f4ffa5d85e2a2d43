"""Advice for mistaken requests: the route that was meant, the field that was misspelt."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

SIMILAR = 0.75
"""The similarity, from 0 to 1, from which on one name counts as a misspelling of another."""

_MISTAKEN: Sequence[tuple[str, str, str]] = (
    ("POST|PUT", "/edits", "Edits are made by POST /edit."),
    ("GET|HEAD", "/edit", "Edits are listed by GET /edits, and one is shown by GET /edits/{id}."),
    (
        "DELETE",
        "/edits/[^/]+",
        "Edits are kept for the audit: POST /edits/{id}/rollback takes one back, /edits/{id}/disable switches it off.",
    ),
    ("DELETE", "/edits", 'Edits are kept for the audit: POST /rollback with {"ids": [...]} takes several back.'),
    (
        "PUT|POST",
        "/edits/[^/]+",
        "PATCH /edits/{id} changes the scope of an edit; for another target POST /edit again.",
    ),
    (".*", "/edits?/[^/]+/(undo|revert|delete|remove)", "POST /edits/{id}/rollback takes an edit back."),
    (".*", "/rollback/[^/]+", "POST /edits/{id}/rollback takes an edit back."),
    ("POST", "/probes", "The probes of a namespace are set by PUT /probes."),
    ("PUT|PATCH", "/switch", "The edit switch is turned by POST /switch."),
    ("GET|HEAD", "/(generate|generate_stream|scope)", "This is asked by POST, with a JSON body: /docs shows it."),
    (".*", "/(chat/)?completions", "OpenAI's routes are below /v1: POST /v1/chat/completions, POST /v1/completions."),
    (".*", "/models(/.*)?", "OpenAI's routes are below /v1: GET /v1/models."),
    (".*", "/v1/(edits?|generate|log|scope)", "Errata's own routes are at the top, without /v1."),
)
"""Frequent mistakes as (methods, path, advice); both patterns must match in full."""


def way(method: str, path: str, routes: Iterable[str]) -> str | None:
    """The path to use in place of one that does not exist or does not take the method. `routes` are all existing
    paths."""
    for methods, pattern, hint in _MISTAKEN:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path.rstrip("/") or "/"):
            return hint
    close = difflib.get_close_matches(path, sorted(set(routes) - {path}), n=1, cutoff=SIMILAR)
    return f"Did you mean {close[0]}?" if close else None


def meant(name: str, location: Sequence[int | str], body: Any) -> str | None:
    """Advice on a field that is unknown at a location of a body of this type: the name that it misspells, or the place
    where it belongs."""
    models = list(_models_at(body, location))
    known = [field for model in models for field in _fields(model)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR)
    if close:
        return f"did you mean `{close[0]}`?"
    for model in models:
        for field, annotation in _fields(model).items():
            if any(name in _fields(inner) for inner in _models_in(annotation)):
                return f"it belongs inside `{field}`."
    return None


def names_of(body: Any) -> frozenset[str]:
    """The names of all fields that a body of this type may have, at any depth."""
    models: dict[type[BaseModel], None] = {}
    waiting = list(_models_in(body))
    while waiting:
        model = waiting.pop()
        if model not in models:
            models[model] = None
            waiting += [each for annotation in _fields(model).values() for each in _models_in(annotation)]
    return frozenset(name for model in models for name in _fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """The annotations of its fields, by the names that clients use."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _models_at(annotation: Any, location: Sequence[int | str]) -> Iterator[type[BaseModel]]:
    """The models that a location may have; a union may hold several."""
    if not location:
        yield from _models_in(annotation)
        return
    part, *rest = location
    for model in _models_in(annotation):
        if isinstance(part, str) and part in _fields(model):
            yield from _models_at(_fields(model)[part], rest)
    if isinstance(part, int) or not any(part in _fields(model) for model in _models_in(annotation)):
        yield from _models_at(annotation, rest)  # an index, or the name that pydantic gives a choice


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, through unions, lists and metadata."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models_in(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType, list):
        for each in get_args(annotation):
            yield from _models_in(each)
