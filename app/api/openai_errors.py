"""The same errors in OpenAI's form, for requests under /v1. Depends on the table of problems, not on the routes."""

import re
from collections.abc import Mapping
from typing import Any

PREFIX = "/v1/"
CODES = {
    "unknown-model": "model_not_found",
    "unauthenticated": "invalid_api_key",
    "rate-limited": "rate_limit_exceeded",
    "queue-full": "rate_limit_exceeded",
    "invalid-request": None,
}
"""OpenAI's code for a kind of problem, where it has one; any other keeps the problem's own name."""
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_FIELD = re.compile(r"`([a-z_]+)")


def openai_problem(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a problem into its status and OpenAI's `error`. A client's mistake is 422 here, but 400 with OpenAI."""
    status, kind = int(problem["status"]), str(problem["type"]).rpartition(":")[2]
    message = str(problem["detail"]).replace("`max_new_tokens`", "`max_tokens`")
    errors = problem.get("errors")
    field = errors[0]["field"] if errors else next(iter(_FIELD.findall(message)), None)
    return {
        "status": 400 if status == 422 else status,
        "error": {
            "message": message,
            "type": TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": field or None,
            "code": "context_length_exceeded"
            if "prompt_tokens" in problem
            else CODES.get(kind, kind.replace("-", "_")),
        },
    }
