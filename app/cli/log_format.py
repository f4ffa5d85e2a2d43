"""The log lines of a running server and their format: readable lines on a terminal, JSON with named fields for
programs.

No line contains the values of variables: tracebacks that show them have revealed keys.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from app.service.log_lines import noted

TOLD_BY_MESSAGE = ("kind", "method", "route", "path", "status", "seconds", "change", "error")
"""Fields whose contents the message of a readable line already has in words."""
MOST_FRAMES = 30
"""The most frames shown for one exception, the innermost."""
LIBRARIES = ("transformers", "huggingface_hub", "torch")
"""Libraries whose loggers write to standard error by themselves."""


def as_json(form: str) -> bool:
    """True if lines are for programs. `form` is console, json or auto."""
    return form == "json" or (form == "auto" and not sys.stderr.isatty())


def configure(level: str, form: str = "auto") -> None:
    """Send every library's lines and warnings to stderr in one format. For commands that own the process."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _of_a_request,
    ]
    final: list[Processor]
    if as_json(form):
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        final = [_exception_as_field, structlog.processors.JSONRenderer(default=str)]
    else:
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
        colors = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        final = [
            _for_people,
            structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, pad_level=False, exception_formatter=_write),
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "urllib3", "filelock", "huggingface_hub"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # its start and stop are reported in our own words, its errors are not
    logging.getLogger("uvicorn").setLevel(max(logging.getLogger().level, logging.WARNING))
    warnings.showwarning = _warn
    take_over_libraries()


def take_over_libraries() -> None:
    """Redirect the libraries' loggers. Call it again after importing them: they create their handlers on import."""
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning as one line, where Python would print two."""
    fields = {"category": category.__name__, "where": f"{filename}:{lineno}"}
    logging.getLogger("py.warnings").warning("%s", message, extra=fields)


def _of_a_request(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Add the request's id to a line logged while the request is answered, so that its client can refer to it."""
    request_id = noted("request_id")
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _for_people(_logger: Any, _name: str, event: EventDict) -> EventDict:
    for name in TOLD_BY_MESSAGE:
        event.pop(name, None)
    if str(event.get("logger", "")).startswith("app."):
        del event["logger"]  # of use for a library's line only
    return event


def _exception_as_field(_logger: Any, _name: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, tuple) and info[1] is not None:
        event["exception"] = list(_causes(info[1]))
    return event


def _write(out: TextIO, info: ExcInfo) -> None:
    """Write an exception for people: its causes first, as Python does, but without the frames of libraries between."""
    for each in reversed(list(_causes(info[1]))):
        *outer, last = each["frames"] or [""]
        frames = [frame for frame in outer if "site-packages" not in frame] + [last]
        out.write("".join(f"\n    {frame}" for frame in frames if frame))
        out.write(f"\n  {each['type']}: {each['message']}")


def _causes(error: BaseException) -> Iterator[dict[str, Any]]:
    """The exception and its causes, each with its type, its message and the frames where it was raised."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)[-MOST_FRAMES:]
        yield {
            "type": type(cause).__name__,
            "message": _message(cause),
            "frames": [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames],
        }
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _message(error: BaseException) -> str:
    """The message, without the input of a validation, which may be a prompt."""
    if callable(count := getattr(error, "error_count", None)):  # pydantic's
        return f"{count()} validation errors"
    if callable(errors := getattr(error, "errors", None)):  # FastAPI's
        return f"{len(errors())} validation errors"
    return str(error)
