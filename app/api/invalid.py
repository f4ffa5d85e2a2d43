"""Problems of a body, a query or a header, described by the client's own fields, never in the validator's terms."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from app.api.suggestions import meant, names_of

MOST = 20
"""The most problems reported for one body: a client may send thousands of unknown fields."""
SPECIFIC = {"too_short", "too_long", "value_error", "string_too_short", "string_too_long"}
"""The kinds of errors that are more specific than a wrong type among several that a field takes."""
TAGS = {"one", "batch"}
"""Parts of a location that name a choice made by the validator, not a field of the client."""


def problems_of(error: RequestValidationError, body: Any = None) -> list[dict[str, Any]]:
    """The problems of a request: for each its place, field and message, and in a batch the index. `body` is the type of
    the body that the route takes. At most MOST of them are returned, the first ones."""
    known = names_of(body)
    located = [(each, _Place(each["loc"], error.body, body, known)) for each in error.errors()[:MOST]]
    specific = {place.field for each, place in located if each["type"] in SPECIFIC}
    problems: list[dict[str, Any]] = []
    for each, place in located:
        if each["type"].endswith("_type") and place.field in specific:
            continue  # the form of the field that was meant has an error of its own
        readable = _readable(each, place) | place.in_batch
        if readable not in problems:
            problems.append(readable)
    return _without_wrong_guesses(problems)


def detail_of(problems: Sequence[Mapping[str, Any]], error: RequestValidationError) -> str:
    """All problems as one text, which gives the number of further ones."""
    left = len(error.errors()) - MOST
    more = [f"And there {'is 1 more problem' if left == 1 else f'are {left} more problems'}."] if left > 0 else []
    return " ".join([*(each["message"] for each in problems), *more])


def _without_wrong_guesses(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The problems without those of the wrong alternatives: every form of a field with several complains, and the form
    with an error deeper inside is the one that was meant."""
    deep = {each["field"] for each in problems}

    def outdone(field: str) -> bool:
        return any(other.startswith((f"{field}[", f"{field}.")) for other in deep) if field else False

    return [each for each in problems if not outdone(each["field"])]


class _Place:
    """The location of an error in the body as sent, without the names that the validator gives to its choices."""

    def __init__(self, loc: Sequence[int | str], sent: Any, body: Any, known: frozenset[str]) -> None:
        """`known` holds the names of all fields of the body."""
        self.where, *path = loc
        self.body = body
        self.path: list[int | str] = []
        for depth, part in enumerate(path):
            if depth == 0 and part in TAGS:
                continue
            if isinstance(part, int):
                self.path.append(part)
                sent = sent[part] if isinstance(sent, list) and part < len(sent) else None
            elif self.where != "body" or part in known or (isinstance(sent, dict) and part in sent):
                self.path.append(part)
                sent = sent.get(part) if isinstance(sent, dict) else None

    @property
    def in_batch(self) -> dict[str, Any]:
        """The index of the edit concerned, if it is one of a batch."""
        match self.path:
            case ["edits", int(index), *_]:
                return {"index": index}
        return {}

    @property
    def field(self) -> str:
        """The path as text: ("parameters", "stop", 3) gives "parameters.stop[3]"."""
        field = ""
        for part in self.path:
            field += (f"[{part}]" if field else str(part)) if isinstance(part, int) else f".{part}" if field else part
        return field


def _readable(error: Mapping[str, Any], place: _Place) -> dict[str, Any]:
    kind, message, field = str(error["type"]), str(error["msg"]), place.field
    limits: Mapping[str, Any] = error.get("ctx", {})
    match kind:
        case "json_invalid":
            at = error["loc"][-1]
            text = f"The body is not JSON: {limits.get('error', message)} (character {at})."
            return {"in": str(place.where), "field": "", "message": text}
        case "missing" if not field:
            text = "The body is missing: send a JSON object, with Content-Type: application/json."
        case "missing":
            text = f"`{field}` is missing: add it."
        case "extra_forbidden":
            advice = meant(str(place.path[-1]), place.path[:-1], place.body) if place.where == "body" else None
            text = f"`{field}` is not known here: {advice or 'remove it, or look for its spelling in /docs.'}"
        case "model_attributes_type" | "model_type" if not field:
            text = "The body must be a JSON object, sent with Content-Type: application/json."
        case "model_attributes_type" | "model_type":
            text = f"`{field}` must be an object."
        case "string_unicode":
            text = f"{f'`{field}`' if field else 'A text'} holds half of a surrogate pair, which is not a character."
        case "string_too_long":
            text = f"`{field}` is too long: at most {limits['max_length']} characters are allowed."
        case "too_long":
            text = f"`{field}` holds too many: at most {limits['max_length']} are allowed."
        case "too_short" | "string_too_short":
            text = f"`{field}` is empty: at least {limits['min_length']} is needed."
        case "value_error":
            reason = message.removeprefix("Value error, ")
            text = f"`{field}` {reason}." if field else f"{reason[0].upper()}{reason[1:]}."
        case _ if message.startswith("Input should be ") and field:
            text = f"`{field}` must be {message.removeprefix('Input should be ')}."
        case _:
            text = f"`{field}`: {message[:1].lower()}{message[1:]}." if field else f"{message}."
    return {"in": str(place.where), "field": field, "message": text}
