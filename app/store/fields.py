"""Converts dataclasses to JSON values and back, driven by their field types. Knows no event, entry or hash.

A `bytes` field appears in the JSON as its length; the bytes themselves go beside it, in field order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from io import BytesIO
from sys import intern
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from app.domain.edit import SINCE
from app.domain.errors import InvalidRequest

NEWEST = 2**15
"""A number above every schema, which includes all fields."""
MAX_DEPTH = 64
"""Maximum depth of nested JSON values, far below the recursion limit of Python's JSON reader: whatever is written can
be read."""


def to_json(value: Any, kind: Any, where: str, blobs: list[bytes], schema: int = NEWEST) -> Any:
    """Converts a value of the annotated type `kind` to JSON, with the fields of a schema; appends its bytes to `blobs`.

    Raises InvalidRequest for a JSON value that cannot be kept exactly, TypeError for a value of another type.
    """
    try:
        return _converters(kind, schema)[0](value, blobs)
    except _Unwritable as error:
        raise error.kind(error.form.format(".".join((where, *reversed(error.path))))) from None


def from_json(value: Any, kind: Any, where: str, blobs: BytesIO, schema: int = NEWEST) -> Any:
    """The inverse of `to_json` under a schema; fields introduced later get their defaults.

    Raises ValueError for anything that `to_json` cannot have written, unknown fields included.
    """
    try:
        return _converters(kind, schema)[1](value, blobs)
    except _Invalid as error:
        raise ValueError(f"{'.'.join((where, *reversed(error.path)))} {error}") from None


class _Unwritable(Exception):
    """A value that cannot be written: `form` is the message of an error of the class `kind`, with {} in place of the
    path, which grows while the error propagates, so that writing valid values builds no paths."""

    def __init__(self, kind: type[Exception], form: str) -> None:
        super().__init__(form)
        self.kind, self.form = kind, form
        self.path: list[str] = []


class _Invalid(ValueError):
    """An invalid value. `path` grows while the error propagates, so that reading valid values builds no paths."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str] = []


_Writer = Callable[[Any, list[bytes]], Any]
_Reader = Callable[[Any, BytesIO], Any]


@cache
def _converters(kind: Any, schema: int) -> tuple[_Writer, _Reader]:
    """The writer and the reader for a type, cached because a long log or a snapshot holds millions of values."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_writer(kind, schema), _dataclass_reader(kind, schema)
    if kind is bytes:
        return _write_bytes, _read_bytes
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        write, read = _converters(_inner(kind), schema)
        return (
            lambda value, blobs: None if value is None else write(value, blobs),
            lambda value, blobs: None if value is None else read(value, blobs),
        )
    if origin is tuple:
        write_item, read_item = _converters(get_args(kind)[0], schema)
        return (
            lambda value, blobs: [write_item(each, blobs) for each in _required(value, tuple)],
            lambda value, blobs: tuple([read_item(each, blobs) for each in _checked(value, list)]),
        )
    if origin is Mapping:
        return (
            lambda value, _: _plain(_required(value, Mapping), MAX_DEPTH),
            lambda value, _: _with_shared_names(_checked(value, dict)),
        )
    if kind is float:
        return (
            lambda value, _: _plain(float(_required(value, (int, float), but=bool)), MAX_DEPTH),
            lambda value, _: _checked(value, float),
        )
    not_bool = None if kind is bool else bool
    return (
        lambda value, _: _plain(_required(value, kind, but=not_bool), MAX_DEPTH),
        lambda value, _: _checked(value, kind),
    )


def _dataclass_writer(kind: type, schema: int) -> _Writer:
    writers = tuple((name, _converters(field_type, schema)[0]) for name, field_type in shape(kind, schema).items())

    def write(value: Any, blobs: list[bytes]) -> Any:
        if type(value) is not kind:
            raise _of_another_type(value, kind)
        written, name = {}, ""
        try:
            for name, writer in writers:
                written[name] = writer(getattr(value, name), blobs)
        except _Unwritable as error:
            error.path.append(name)
            raise
        return written

    return write


def _write_bytes(value: Any, blobs: list[bytes]) -> int:
    blobs.append(_required(value, bytes))
    return len(value)


def _dataclass_reader(kind: type, schema: int) -> _Reader:
    readers = {name: _converters(field_type, schema)[1] for name, field_type in shape(kind, schema).items()}
    # a snapshot has no schema of its own: an older one lacks what came later
    later = {name for name, _ in _later(kind)} if schema == NEWEST else set()

    def read(value: Any, blobs: BytesIO) -> Any:
        if type(value) is not dict or not readers.keys() - later <= value.keys() <= readers.keys():
            names = sorted(set(value) ^ set(readers)) if isinstance(value, dict) else type(value).__name__
            raise _Invalid(f"has unknown or missing fields: {names}")
        arguments, name = {}, ""
        try:
            for name, reader in readers.items():
                if name in value:
                    arguments[name] = reader(value[name], blobs)
        except _Invalid as error:
            error.path.append(name)
            raise
        return kind(**arguments)

    return read


def _read_bytes(value: Any, blobs: BytesIO) -> bytes:
    blob = blobs.read(_checked(value, int))
    if len(blob) != value:
        raise _Invalid(f"is {value} bytes long but {len(blob)} are left")
    return blob


@cache
def shape(kind: type, schema: int = NEWEST) -> dict[str, Any]:
    """Fields of a dataclass in a schema: name -> type, in order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.metadata.get(SINCE, 0) <= schema}


def schema_of(value: Any) -> int:
    """The oldest schema that can hold a dataclass value: fields introduced later must have their defaults. 0: any
    schema."""
    kind: Any = type(value)
    own = (since for name, since in _later(kind) if getattr(value, name))
    inner = (schema_of(item) for name in _inside(kind) for item in _items(getattr(value, name)))
    return max(*own, *inner, 0, 0)


def _items(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@cache
def _later(kind: Any) -> tuple[tuple[str, int], ...]:
    """(name, schema) of the fields introduced by a later schema; their defaults are all empty or false."""
    return tuple((field.name, field.metadata[SINCE]) for field in fields(kind) if SINCE in field.metadata)


@cache
def _inside(kind: Any) -> tuple[str, ...]:
    """Fields that hold a dataclass, or a tuple of them."""
    names = []
    for name, field_type in shape(kind).items():
        inner = get_args(field_type)[0] if get_origin(field_type) is tuple else field_type
        if isinstance(inner, type) and is_dataclass(inner):
            names.append(name)
    return tuple(names)


def _inner(optional: Any) -> Any:
    (inner,) = (kind for kind in get_args(optional) if kind is not type(None))
    return inner


def _plain(value: Any, depth: int) -> Any:
    """Checks and copies a JSON value. Tuples become lists, which is how they are read back."""
    if depth == 0:
        raise _Unwritable(InvalidRequest, f"`{{}}` is nested more than {MAX_DEPTH} levels deep: flatten it.")
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                raise _Unwritable(
                    InvalidRequest, f"`{{}}` is {value}, which JSON cannot hold: leave it out or use a text."
                )
            return float(value)
        case dict() | Mapping():
            copied: dict[str, Any] = {}
            for name, item in value.items():
                if not isinstance(name, str):
                    raise _Unwritable(TypeError, f"a key of {{}} is a {type(name).__name__}, not a str")
                try:
                    copied[name] = _plain(item, depth - 1)
                except _Unwritable as error:
                    error.path.append(name)
                    raise
            return copied
        case list() | tuple():
            return [_plain(item, depth - 1) for item in value]
        case _:
            raise _Unwritable(TypeError, f"{{}} is a {type(value).__name__}, not a JSON value")


def _required(value: Any, kind: Any, but: type | None = None) -> Any:
    if not isinstance(value, kind) or (but is not None and isinstance(value, but)):
        raise _of_another_type(value, kind)
    return value


def _of_another_type(value: Any, kind: Any) -> _Unwritable:
    return _Unwritable(TypeError, f"{{}} is a {type(value).__name__}, not a {getattr(kind, '__name__', kind)}")


def _with_shared_names(value: Any) -> Any:
    """The JSON value, with one object for each name in it, which a long log repeats in every edit."""
    if type(value) is dict:
        return {intern(name): _with_shared_names(item) for name, item in value.items()}
    if type(value) is list:
        for at, item in enumerate(value):
            if type(item) in (dict, list):
                value[at] = _with_shared_names(item)
    return value


def _checked(value: Any, kind: type) -> Any:
    # isinstance would accept JSON's true as an int
    if type(value) is not kind:
        raise _Invalid(f"is a {type(value).__name__}, not a {kind.__name__}")
    return value
