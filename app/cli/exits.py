"""Exit codes, by which a script distinguishes outcomes without reading messages; `--help` and docs/operation.md list
them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from app.domain.errors import (
    EditRejected,
    ErrataError,
    IncompatibleEdit,
    ScopeConflict,
    StateConflict,
    UnknownEdit,
    UnknownKey,
)


class Exit(IntEnum):
    """The exit codes of failures. 0 is success; a signal ends a command with 128 plus its number, as in shells (Ctrl-C:
    130)."""

    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNKNOWN = 4
    NOT_ALLOWED = 5
    REFUSED = 6
    BUSY = 7


MEANINGS: Mapping[int, str] = {
    0: "done",
    Exit.FAILED: "failed, or a check found something wrong",
    Exit.USAGE: "wrong arguments, settings or request",
    Exit.UNREACHABLE: "no server answers",
    Exit.UNKNOWN: "no such edit, key or revision",
    Exit.NOT_ALLOWED: "a key is needed, or its role is too low",
    Exit.REFUSED: "refused: it failed verification, or conflicts with live edits",
    Exit.BUSY: "not ready or too busy: try again later",
    130: "stopped by Ctrl-C",
}

BY_STATUS: Mapping[int, Exit] = {
    400: Exit.USAGE,
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.UNKNOWN,
    409: Exit.REFUSED,
    410: Exit.UNKNOWN,
    412: Exit.REFUSED,
    413: Exit.USAGE,
    422: Exit.USAGE,
    429: Exit.BUSY,
    503: Exit.BUSY,
    504: Exit.BUSY,
}


def exit_of_problem(problem: Mapping[str, Any]) -> Exit:
    """The exit code for a problem that the server answered with."""
    if str(problem.get("type", "")).endswith(":edit-rejected"):
        return Exit.REFUSED
    return BY_STATUS.get(problem["status"], Exit.FAILED)


def exit_of_error(error: ErrataError) -> Exit:
    """The exit code for an error on this machine, without a server."""
    if isinstance(error, UnknownEdit | UnknownKey):
        return Exit.UNKNOWN
    if isinstance(error, EditRejected | ScopeConflict | StateConflict | IncompatibleEdit):
        return Exit.REFUSED
    return Exit.FAILED
