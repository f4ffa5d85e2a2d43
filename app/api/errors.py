"""Errors in HTTP answers: one table maps an error to a status and a problem (RFC 9457). Independent of the routes."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.api import openai_errors
from app.api.invalid import detail_of, problems_of
from app.api.suggestions import way
from app.domain import errors as domain
from app.engine.controls import shown

_log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
PREFIX = "urn:errata:problem:"
CLIENT_GONE = 499
"""The status in the log and the metrics for a request whose client left; nobody receives it."""
RETRY_AFTER_S = 1
INTERNAL = "The server met an error of its own. Its log has more, under this X-Request-Id."


class ClientGone(Exception):
    """The client closed its connection before there was an answer."""


TABLE: Mapping[type[domain.ErrataError], tuple[int, str, str]] = {
    domain.InvalidRequest: (422, "invalid-request", "Invalid request"),
    domain.UnknownEdit: (404, "unknown-edit", "Unknown edit"),
    domain.UnknownNamespace: (404, "unknown-namespace", "Unknown namespace"),
    domain.UnknownJob: (404, "unknown-job", "Unknown job"),
    domain.UnknownProposal: (404, "unknown-proposal", "Unknown proposal"),
    domain.UnknownAnswer: (404, "unknown-answer", "Unknown answer"),
    domain.UnknownReport: (404, "unknown-report", "Unknown reported answer"),
    domain.UnknownModel: (404, "unknown-model", "Unknown model"),
    domain.UnsupportedModel: (422, "unsupported-model", "Unsupported model"),
    domain.StateConflict: (409, "state-conflict", "The edit's state does not allow this"),
    domain.PreconditionFailed: (412, "precondition-failed", "It has changed since it was read"),
    domain.ScopeConflict: (409, "scope-conflict", "Another edit's scope overlaps"),
    domain.IdempotencyMismatch: (422, "idempotency-mismatch", "Idempotency-Key used with another body"),
    domain.EditRejected: (422, "edit-rejected", "The edit failed its verification"),
    domain.Unauthenticated: (401, "unauthenticated", "A key is needed"),
    domain.Forbidden: (403, "forbidden", "The key's role does not allow this"),
    domain.RateLimited: (429, "rate-limited", "Too many requests"),
    domain.UnknownKey: (404, "unknown-key", "Unknown key"),
    domain.UnknownWebhook: (404, "unknown-webhook", "Unknown webhook"),
    domain.RevisionGone: (410, "revision-gone", "The revision is no longer kept"),
    domain.RevisionAhead: (503, "revision-ahead", "The revision is not applied here yet"),
    domain.QueueFull: (429, "queue-full", "Too many requests wait"),
    domain.RequestCancelled: (503, "request-cancelled", "The request was cancelled"),
    domain.EngineAway: (503, "engine-away", "The model cannot answer for a while"),
    domain.DeadlineExceeded: (504, "deadline-exceeded", "The request took longer than it was given"),
    domain.LostRace: (503, "lost-race", "Another writer was first"),
    domain.StoreUnavailable: (503, "store-unavailable", "The log cannot be written"),
    domain.StoreCorrupt: (500, "store-corrupt", "The log is damaged"),
    domain.IncompatibleEdit: (409, "incompatible-edit", "The edit was made for another model"),
    domain.ErrataError: (500, "server-error", "The server failed"),
}
"""Maps an error to (status, problem type, title); a class that is not listed takes the row of its nearest base."""

HTTP_TITLES = {408: "Request timeout", 413: "Content too large"}
"""The titles of statuses whose phrase in Python differs between Python's versions."""
HTTP_DETAILS = {
    404: "There is nothing at this path: /docs lists every route.",
    405: "This path does not take this method; the Allow header names those it takes.",
}
"""The details that replace one that only repeats the status."""


class ProblemResponse(Response):
    """A problem as an answer, with all but ASCII escaped: it may quote what the client sent, even half of a surrogate
    pair."""

    media_type = PROBLEM_JSON

    def __init__(self, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(problem, default=str)
        super().__init__(content, status_code=int(problem["status"]), headers=dict(headers or {}))


def problem(
    status: int, kind: str, title: str, detail: str, more: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    return {**more, "type": PREFIX + kind, "title": title, "status": status, "detail": detail}


def row_of(error: type[domain.ErrataError]) -> tuple[int, str, str]:
    return next(TABLE[base] for base in error.__mro__ if base in TABLE)


def problem_of(error: Exception, body: Any = None) -> dict[str, Any]:
    """Any exception as a problem. A fault of the server is logged here, and reported without its internals. `body` is
    the type of the route's body, for advice on unknown field names."""
    if isinstance(error, domain.ErrataError):
        status, kind, title = row_of(type(error))
        if status == 500:
            _log.error("%s: %s", type(error).__name__, error.message, exc_info=error)
        details = {name: value for name, value in error.details.items() if name != "retry_after_s"}
        return problem(status, kind, title, error.message, shown(details))
    if isinstance(error, ClientGone):
        return problem(CLIENT_GONE, "client-gone", "The client went away", "The connection was closed.")
    if isinstance(error, HTTPException) and error.status_code == 400:  # FastAPI's answer to bytes that are not text
        return problem(422, "invalid-request", "Invalid request", "The body cannot be read: send JSON, in UTF-8.")
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        title = HTTP_TITLES.get(error.status_code) or phrase
        detail = str(error.detail) if error.detail != phrase else HTTP_DETAILS.get(error.status_code, phrase)
        return problem(error.status_code, title.lower().replace(" ", "-"), title, detail)
    if isinstance(error, RequestValidationError):
        errors = problems_of(error, body)
        return problem(422, "invalid-request", "Invalid request", detail_of(errors, error), {"errors": errors})
    _log.error("An unexpected error", exc_info=error)
    return problem(500, "server-error", "The server failed", INTERNAL)


def headers_of(error: Exception, status: int) -> dict[str, str]:
    """The headers of an error: Retry-After if a repetition may help, and those of an HTTP error, such as Allow."""
    if isinstance(error, HTTPException) and error.headers:
        return dict(error.headers)
    if isinstance(error, domain.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="errata"'}
    if isinstance(error, domain.ErrataError) and status in (429, 503):
        # whole seconds, and never 0: the header has no finer unit
        return {"Retry-After": str(max(RETRY_AFTER_S, round(error.details.get("retry_after_s", RETRY_AFTER_S))))}
    return {}


def answer_to(error: Exception, path: str = "", body: Any = None) -> Response:
    """The answer to an error, in the form that its path uses: a problem, or OpenAI's `error`."""
    problem = problem_of(error, body)
    headers = headers_of(error, problem["status"])
    if path.startswith(openai_errors.PREFIX):
        converted = openai_errors.openai_problem(problem)
        return Response(
            json.dumps({"error": converted["error"]}),
            status_code=converted["status"],
            headers=headers,
            media_type="application/json",
        )
    return ProblemResponse(problem, headers)


async def _handle(request: Request, error: Exception) -> Response:
    path, route = request.url.path, request.scope.get("route")
    if isinstance(error, HTTPException) and error.status_code in HTTP_DETAILS:
        hint = way(request.method, path, request.app.openapi()["paths"])
        detail = HTTP_DETAILS[error.status_code] + (f" {hint}" if hint else "")
        error = HTTPException(error.status_code, detail, error.headers)
    field = getattr(route, "body_field", None)
    return answer_to(error, path, None if field is None else field.field_info.annotation)


def install(app: FastAPI) -> None:
    """Handle all errors except unexpected ones, which `middleware` answers: only there does the answer get its
    headers."""
    for kind in (domain.ErrataError, HTTPException, RequestValidationError, ClientGone):
        app.add_exception_handler(kind, _handle)
