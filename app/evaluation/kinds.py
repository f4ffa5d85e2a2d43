"""Kinds of cases, recognised by the fields of their rows, and readers for the kinds that concern scope."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar, cast, get_args

from app.domain.errors import InvalidRequest
from app.evaluation.case_selection import Half, half_of
from app.evaluation.rows import rows_of
from app.evaluation.trials import Messages

Kind = Literal["edits", "support", "pairs", "conversations"]
FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "support": ("intent", "text"),
    "pairs": ("prompt", "target", "same", "other"),
    "conversations": ("messages", "target", "right", "wrong"),
}
SHIPPED: Mapping[Kind, Path] = {
    "pairs": Path(__file__).with_name("cases_minimal_pairs.jsonl"),
    "conversations": Path(__file__).with_name("cases_conversations.jsonl"),
}
"""Bundled cases, written for this evaluation and used when no file is named."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeCaseSelection:
    """The selection of rows that become edits, and of questions. Fields about intents apply to support cases only."""

    edits: int | None = None
    half: Half | None = None
    seed: int = 0
    where: Mapping[str, str] = field(default_factory=dict)
    known: Sequence[int] = (1, 5, 10)
    """Numbers of utterances that each edit is given; each number makes a trial."""
    ask: int = 1_000
    """Maximum number of questions from the edits' intents, and the same for other intents."""
    traffic: int = 0
    """Number of utterances that the namespace has as recent prompts."""
    traffic_from: Literal["others", "all"] = "others"
    """The intents that traffic is drawn from: those without an edit (`others`), or all."""


def kind_of(files: Sequence[Path]) -> Kind:
    """The kind of the files' rows. Raises InvalidRequest for files with rows of several kinds."""
    kinds: dict[Kind, str] = {}
    for file in files:
        for number, row in enumerate(rows_of(file), 1):
            kinds.setdefault(_kind(row), f"row {number} of {file}")
    if len(kinds) > 1:
        kinds_found = ", ".join(f"{kind} ({where})" for kind, where in kinds.items())
        raise InvalidRequest(f"The files hold cases of several kinds: {kinds_found}. Evaluate one kind at a time.")
    return next(iter(kinds))


def _kind(row: Any) -> Kind:
    kinds = (
        kind for kind, fields in FIELDS.items() if isinstance(row, Mapping) and all(each in row for each in fields)
    )
    return next(kinds, "edits")


def read(
    files: Sequence[Path], kind: Kind, where: Mapping[str, str], row_of: Callable[[Mapping[str, Any]], T]
) -> list[T]:
    """Rows of all files, converted by `row_of`. Raises InvalidRequest with the row that cannot be read."""
    cases: list[T] = []
    for file in files:
        for number, row in enumerate(rows_of(file), 1):
            try:
                if all(str(row.get(name, value)) == value for name, value in where.items()):
                    cases.append(row_of(row))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                fields = ", ".join(f"`{name}`" for name in FIELDS[kind])
                raise InvalidRequest(
                    f"Row {number} of {file} cannot be read as {kind} ({type(error).__name__}: {error}): "
                    f"it needs the fields {fields}."
                ) from error
    return cases


def chosen(rows: Sequence[T], selection: ScopeCaseSelection, half: Callable[[T], Half]) -> list[T]:
    """Rows of the selected half, shuffled by the seed and limited in number. Raises InvalidRequest if none is left."""
    left = [row for row in rows if selection.half in (None, half(row))]
    if not left:
        raise InvalidRequest("No row of the files is left: loosen --where, or leave --half out.")
    Random(selection.seed).shuffle(left)
    return left[: selection.edits]


def half_in(row: Mapping[str, Any], name: str) -> Half:
    """The half that a row names; without one, the hash of `name` decides."""
    named = row.get("half")
    if named is None:
        return half_of(name)
    if named not in get_args(Half):
        raise ValueError(f"`half` must be {' or '.join(get_args(Half))}, not {named!r}")
    return cast(Half, named)


def text_in(row: Mapping[str, Any], name: str) -> str:
    return _checked(row[name], name)


def texts_in(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts of a field; empty if the row lacks it."""
    value = row.get(name, ())
    if not isinstance(value, list | tuple):
        raise TypeError(f"`{name}` must be a list of texts, not {value!r}")
    return tuple(_checked(each, name) for each in value)


def messages_in(value: Any, name: str) -> Messages:
    """Reads a conversation that ends with a user turn."""
    if not isinstance(value, list) or not value:
        raise TypeError(f"`{name}` must be a list of messages, not {value!r}")
    messages = tuple({"role": text_in(each, "role"), "content": text_in(each, "content")} for each in value)
    if messages[-1]["role"] != "user":
        raise ValueError(f"`{name}` must end with a message of the user")
    return messages


def _checked(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"`{name}` must be a text that is not empty, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{name}` holds half of a surrogate pair, which is not a character: {value!a}") from None
    return value
