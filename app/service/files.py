"""Files of corrections, in CSV or JSON lines: reading them into rows, and writing rows back in the same format.

Imports neither torch nor the service: the meaning of a row as a request is decided elsewhere.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.domain.errors import InvalidRequest

COLUMNS = ("prompt", "target", "subject", "paraphrases", "counter_examples", "reason", "expires")
LISTS = frozenset({"paraphrases", "counter_examples"})
"""The columns that hold several texts: one on each line of a CSV cell, or a list in JSON."""
PROBLEM = "problem"
"""The column in which a file of refused rows gives the reason. It is ignored when the file is read again."""
NEEDED = ("prompt", "target")
MOST_ROWS = 1_000
DELIMITERS = (",", ";", "\t")
"""The delimiters that spreadsheets write, depending on their locale."""
FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""The start of a text that a spreadsheet would take for a formula, or that an apostrophe already protects from it."""

LINE_END = re.compile(r"[\r\n]")
"""The end of a line; some spreadsheets write a carriage return alone."""

Kind = Literal["csv", "jsonl"]


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a file: the line on which it begins (from 1), its contents, and why it cannot be read, if so."""

    number: int
    texts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problem: str | None = None

    def text(self, name: str) -> str:
        return self.texts.get(name, "").strip()

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.strip() for each in self.lists.get(name, ()) if each.strip()))


def read(text: str) -> tuple[Kind, list[FileRow]]:
    """Read a file's rows. A row that cannot be read is included, with its problem.

    Raises InvalidRequest for a file of which no row can be read, or that has more than MOST_ROWS rows.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InvalidRequest("The file is empty: it needs a row for each correction.")
    kind: Kind = "jsonl" if text.lstrip().startswith("{") else "csv"
    lines = list(_json_lines(text) if kind == "jsonl" else _csv_lines(text))
    if not lines:
        raise InvalidRequest("The file has a header and no rows: add a row for each correction.")
    if len(lines) > MOST_ROWS:
        raise InvalidRequest(f"The file has {len(lines)} rows: send at most {MOST_ROWS} at a time.")
    return kind, lines


# -- reading CSV


def _csv_lines(text: str) -> Iterator[FileRow]:
    head = LINE_END.split(text.lstrip(), maxsplit=1)[0]
    delimiter = max(DELIMITERS, key=lambda each: sum(name in _header(head, each) for name in COLUMNS))
    names = _header(head, delimiter)
    for name in NEEDED:
        if name not in names:
            raise InvalidRequest(
                f"The file has no column {name!r}: its first line must name the columns, of which `prompt` and "
                f"`target` are needed. It may also be JSON lines, each an object with these names."
            )
    if unknown := [name for name in names if name not in (*COLUMNS, PROBLEM)]:
        raise InvalidRequest(f"The column {unknown[0]!r} is not known: {_known()}.")
    if len(set(names)) < len(names):
        raise InvalidRequest("The first line names a column twice: keep one of the two.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    began, headed = 1, False
    try:
        for cells in reader:
            number, began = began, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if headed:
                yield _csv_line(number, names, cells)
            headed = True
    except csv.Error as error:
        raise _unreadable(began, error) from None


def _unreadable(line: int, error: csv.Error) -> InvalidRequest:
    return InvalidRequest(
        f"The file cannot be read as CSV from line {line} on ({error}): a cell with a quotation mark stands in "
        f"quotation marks, each mark in it is doubled, and a cell holds at most {csv.field_size_limit():,} characters."
    )


def _header(head: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([head], delimiter=delimiter), [])
    except csv.Error as error:
        raise _unreadable(1, error) from None
    names = [cell.strip().casefold().replace(" ", "_") for cell in cells]
    while names and not names[-1]:  # a spreadsheet writes empty columns at the end
        names.pop()
    return names


def _csv_line(number: int, names: Sequence[str], cells: Sequence[str]) -> FileRow:
    if any(cell.strip() for cell in cells[len(names) :]):
        return FileRow(
            number,
            dict(zip(names, cells, strict=False)),
            problem="It has more cells than the first line has columns: put texts that hold the separator in "
            "quotation marks.",
        )
    texts, lists = {}, {}
    for name, cell in zip(names, map(_unguarded, cells), strict=False):
        if name in LISTS:
            lists[name] = tuple(cell.splitlines())
        elif name != PROBLEM:
            texts[name] = cell
    return FileRow(number, texts, lists)


def _guarded(cell: str) -> str:
    """The cell in a form that no spreadsheet takes for a formula. `_unguarded` reverses it."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


# -- reading JSON lines


def _json_lines(text: str) -> Iterator[FileRow]:
    for number, row in enumerate(text.split("\n"), 1):
        if row.strip():
            yield _json_line(number, row)


def _json_line(number: int, row: str) -> FileRow:
    try:
        given = json.loads(row)
    except (ValueError, RecursionError) as error:
        return FileRow(
            number, {"prompt": row.strip()[:200]}, problem=f"It is not JSON ({error}): write one object a line."
        )
    if not isinstance(given, dict):
        return FileRow(number, problem='It is not a JSON object: write one object a line, such as {"prompt": ...}.')
    texts: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    problem: str | None = None
    for name, value in given.items():
        if name == PROBLEM or value is None:
            continue
        if name not in COLUMNS:
            problem = problem or f"{name!r} is not known: {_known()}."
        elif name in LISTS and isinstance(value, list) and all(isinstance(each, str) for each in value):
            lists[name] = tuple(value)
        elif name in LISTS and isinstance(value, str):
            lists[name] = tuple(value.splitlines())
        elif name not in LISTS and isinstance(value, str):
            texts[name] = value
        else:
            problem = problem or f"{name!r} must be {'a list of texts' if name in LISTS else 'a text'}."
    if _is_broken([*texts.values(), *(each for texts_ in lists.values() for each in texts_)]):
        return FileRow(number, problem="A text holds half of a surrogate pair, which is not a character: remove it.")
    return FileRow(number, texts, lists, problem)


def _is_broken(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return True
    return False


def _known() -> str:
    return f"use {', '.join(COLUMNS)}"


# -- writing


def write(kind: Kind, rows: Iterable[tuple[FileRow, str]]) -> str:
    """Write rows, each with its problem, in a form that `read` accepts, so that they can be repaired and sent again."""
    if kind == "jsonl":
        return "".join(f"{json.dumps(_object(*row), ensure_ascii=False)}\n" for row in rows)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow((*COLUMNS, PROBLEM))
    for line, problem in rows:
        cells = ["\n".join(line.list(name)) if name in LISTS else line.text(name) for name in COLUMNS]
        writer.writerow([_guarded(cell) for cell in (*cells, problem)])
    return out.getvalue()


def _object(line: FileRow, problem: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in COLUMNS:
        value: Any = list(line.list(name)) if name in LISTS else line.text(name)
        if value or name in NEEDED:
            fields[name] = value
    return {**fields, PROBLEM: problem}
