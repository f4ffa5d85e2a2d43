"""Journal of a run, line by line, from which an interrupted run resumes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidRequest

LEFT = "left"
"""Field of a line in a group: number of lines of the group that follow it."""


class Journal:
    """An append-only file of JSON lines. A partial line or group at its end, left by a killed run, is dropped."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lines(self) -> list[dict[str, Any]]:
        """All complete lines. Raises InvalidRequest for a damaged line before the end."""
        if not self._file.exists():
            return []
        whole = self._file.read_bytes()
        written = whole.split(b"\n")[:-1]  # as bytes: the last line may end within a character
        lines = [self._parsed(line, number) for number, line in enumerate(written, 1)]
        while lines and lines[-1].get(LEFT):
            lines.pop()
        kept = b"".join(line + b"\n" for line in written[: len(lines)])
        if kept != whole:
            with self._file.open("r+b") as file:
                file.truncate(len(kept))
        return lines

    def add(self, *lines: Mapping[str, Any]) -> None:
        """Appends a group of lines; after a kill either all of them are present or none."""
        counted = [{**line, LEFT: len(lines) - at} if at < len(lines) else line for at, line in enumerate(lines, 1)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in counted)
        with self._file.open("ab") as file:
            file.write(text.encode())

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            parsed: dict[str, Any] = json.loads(line)
            return parsed
        except ValueError as error:
            raise InvalidRequest(
                f"Line {number} of {self._file} is not as it was written ({error}): name another folder."
            ) from error
