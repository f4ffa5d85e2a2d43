"""Reads a file of rows: JSON lines or one JSON list. Knows no field of a row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidRequest

FORMS = "it takes a JSON list, or a JSON object on each line"


def rows_of(file: Path) -> Sequence[Mapping[str, Any]]:
    """Rows in file order. Raises InvalidRequest for an unreadable or empty file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not in UTF-8 ({error}): {FORMS}.") from error
    rows = _parsed(text, str(file)) if text.lstrip().startswith("[") else list(_lines(text, file))
    if not rows:
        raise InvalidRequest(f"{file} is empty: {FORMS}.")
    return rows


def _lines(text: str, file: Path) -> Iterator[Any]:
    # not `splitlines`, which also splits at characters that JSON text may contain
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(line, f"Line {number} of {file}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not JSON ({error}): {FORMS}.") from error
