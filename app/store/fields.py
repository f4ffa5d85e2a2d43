"""Converts dataclasses to JSON values and back, driven by their field types. Knows no event, entry or hash.

A `bytes` field appears in the JSON as its length; the bytes themselves go beside it, in field order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from io import BytesIO
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
    if isinstance(kind, type) and is_dataclass(kind):
        _require(type(value) is kind, value, kind, where)
        return {
            name: to_json(getattr(value, name), field_type, f"{where}.{name}", blobs, schema)
            for name, field_type in shape(kind, schema).items()
        }
    if kind is bytes:
        _require(isinstance(value, bytes), value, kind, where)
        blobs.append(value)
        return len(value)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return None if value is None else to_json(value, _inner(kind), where, blobs, schema)
    if origin is tuple:
        _require(isinstance(value, tuple), value, kind, where)
        return [to_json(item, get_args(kind)[0], where, blobs, schema) for item in value]
    if origin is Mapping:
        _require(isinstance(value, Mapping), value, kind, where)
        return _plain(value, where, MAX_DEPTH)
    wanted = (int, float) if kind is float else kind
    _require(isinstance(value, wanted) and (kind is bool or not isinstance(value, bool)), value, kind, where)
    return _plain(float(value) if kind is float else value, where, MAX_DEPTH)


def from_json(value: Any, kind: Any, where: str, blobs: BytesIO, schema: int = NEWEST) -> Any:
    """The inverse of `to_json` under a schema; fields introduced later get their defaults.

    Raises ValueError for anything that `to_json` cannot have written, unknown fields included.
    """
    try:
        return _reader(kind, schema)(value, blobs)
    except _Invalid as error:
        raise ValueError(f"{'.'.join((where, *reversed(error.path)))} {error}") from None


class _Invalid(ValueError):
    """An invalid value. `path` grows while the error propagates, so that reading valid values builds no paths."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str] = []


_Reader = Callable[[Any, BytesIO], Any]


@cache
def _reader(kind: Any, schema: int) -> _Reader:
    """The reader for a type, cached because a long log holds millions of values."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_reader(kind, schema)
    if kind is bytes:
        return _read_bytes
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = _reader(_inner(kind), schema)
        return lambda value, blobs: None if value is None else inner(value, blobs)
    if origin is tuple:
        item = _reader(get_args(kind)[0], schema)
        return lambda value, blobs: tuple([item(each, blobs) for each in _checked(value, list)])
    wanted = dict if origin is Mapping else kind
    return lambda value, blobs: _checked(value, wanted)


def _dataclass_reader(kind: type, schema: int) -> _Reader:
    readers = {name: _reader(field_type, schema) for name, field_type in shape(kind, schema).items()}
    # a snapshot has no schema of its own: an older one lacks what came later
    later = {name for name, _ in _later(kind)} if schema == NEWEST else set()

    def read(value: Any, blobs: BytesIO) -> Any:
        if type(value) is not dict or not readers.keys() - later <= value.keys() <= readers.keys():
            names = sorted(set(value) ^ set(readers)) if isinstance(value, dict) else type(value).__name__
            raise _Invalid(f"has unknown or missing fields: {names}")
        found, name = {}, ""
        try:
            for name, reader in readers.items():
                if name in value:
                    found[name] = reader(value[name], blobs)
        except _Invalid as error:
            error.path.append(name)
            raise
        return kind(**found)

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
    found = []
    for name, field_type in shape(kind).items():
        inner = get_args(field_type)[0] if get_origin(field_type) is tuple else field_type
        if isinstance(inner, type) and is_dataclass(inner):
            found.append(name)
    return tuple(found)


def _inner(optional: Any) -> Any:
    (inner,) = (kind for kind in get_args(optional) if kind is not type(None))
    return inner


def _plain(value: Any, where: str, depth: int) -> Any:
    """Checks and copies a JSON value. Tuples become lists, which is how they are read back."""
    if depth == 0:
        raise InvalidRequest(f"`{where}` is nested more than {MAX_DEPTH} levels deep: flatten it.")
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                raise InvalidRequest(f"`{where}` is {value}, which JSON cannot hold: leave it out or use a text.")
            return float(value)
        case Mapping():
            for key in value:
                _require(isinstance(key, str), key, str, f"a key of {where}")
            return {key: _plain(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, where, depth - 1) for item in value]
        case _:
            raise TypeError(f"{where} is a {type(value).__name__}, not a JSON value")


def _require(ok: bool, value: Any, kind: Any, where: str) -> None:
    if not ok:
        raise TypeError(f"{where} is a {type(value).__name__}, not a {getattr(kind, '__name__', kind)}")


def _checked(value: Any, kind: type) -> Any:
    # isinstance would accept JSON's true as an int
    if type(value) is not kind:
        raise _Invalid(f"is a {type(value).__name__}, not a {kind.__name__}")
    return value
