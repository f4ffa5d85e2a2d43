"""Submitted forms, as the values that the service takes. Independent of the pages."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from starlette.requests import Request

from app.domain.errors import InvalidRequest

MOST_FIELDS = 5_000
MOST_CHARS = 100_000
MOST_REASON_CHARS = 2_000
MOST_FILE_CHARS = 4_000_000
UNSIGNED = frozenset({"csrf", "once", "read"})
"""The fields that say nothing about what is asked for."""


@dataclass(frozen=True, slots=True)
class Form:
    """The names and values of a form, in order; a name may occur several times."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    async def of(cls, request: Request) -> "Form":
        """The form in a request's body. Raises InvalidRequest for a body that is no form."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind == "multipart/form-data":
            return cls(_parts(request.headers["content-type"], await request.body()))
        if kind != "application/x-www-form-urlencoded":
            raise InvalidRequest("The form did not arrive as a browser sends it: open its page and send it from there.")
        try:
            text = (await request.body()).decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        except ValueError:  # UnicodeError is a ValueError
            raise InvalidRequest("The form cannot be read: open its page and send it from there.") from None
        return cls(tuple((name, value.replace("\r\n", "\n")) for name, value in pairs))

    def get(self, name: str, otherwise: str = "") -> str:
        """A field's first value, without surrounding blanks. Raises InvalidRequest if it is longer than MOST_CHARS."""
        value = next((value for key, value in self.pairs if key == name), otherwise).strip()
        if len(value) > MOST_CHARS:
            raise InvalidRequest(f"The field {name} is too long: at most {MOST_CHARS} characters are allowed.")
        return value

    def file(self, *names: str) -> str:
        """The first of these fields that has a text, which may be a whole file. Raises InvalidRequest."""
        texts = [value for name in names for key, value in self.pairs if key == name and value.strip()]
        if texts and len(texts[0]) > MOST_FILE_CHARS:
            raise InvalidRequest(f"The file is too long: at most {MOST_FILE_CHARS:,} characters are allowed at a time.")
        return texts[0] if texts else ""

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value for key, value in self.pairs if key == name and value.strip()))

    def lines(self, name: str) -> tuple[str, ...]:
        """The lines of a field, one text per line."""
        return tuple(dict.fromkeys(line.strip() for line in self.get(name).split("\n") if line.strip()))

    def names(self, name: str) -> tuple[str, ...]:
        """A field's names, which blanks or commas separate."""
        return tuple(dict.fromkeys(self.get(name).replace(",", " ").split()))

    def number(self, name: str, otherwise: int) -> int:
        """A field as a whole number. Raises InvalidRequest for anything else."""
        text = self.get(name)
        if not text:
            return otherwise
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InvalidRequest(f"{name.replace('_', ' ').capitalize()} must be a whole number.")
        return int(text)

    def reason(self) -> str | None:
        text = self.get("reason")
        if len(text) > MOST_REASON_CHARS:
            raise InvalidRequest(f"The reason is too long: at most {MOST_REASON_CHARS} characters are kept.")
        return text or None

    def mark(self) -> str:
        """A hash of the form and its contents: a form that is sent twice is carried out once, and one that was changed
        and sent again is another request."""
        signed = [pair for pair in self.pairs if pair[0] not in UNSIGNED]
        return hashlib.sha256(repr((self.get("once"), signed)).encode(errors="surrogatepass")).hexdigest()[:32]


def _parts(kind: str, body: bytes) -> tuple[tuple[str, str], ...]:
    """The fields of a form with a file, each as text. Raises InvalidRequest."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = [part for part in message.walk() if not part.is_multipart()] if message.is_multipart() else []
    if not 0 < len(parts) <= MOST_FIELDS or message.defects:
        raise InvalidRequest("The form cannot be read: open its page and send it from there.")
    values = []
    for part in parts:
        name, data = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(data, bytes):
            raise InvalidRequest("The form cannot be read: open its page and send it from there.")
        try:
            values.append((name, data.decode().replace("\r\n", "\n")))
        except UnicodeDecodeError:
            raise InvalidRequest(
                "The file is not UTF-8 text: save it as “CSV UTF-8”, or as JSON lines in UTF-8, and send it again."
            ) from None
    return tuple(values)


def seconds_until(day: str, now_s: float, name: str = "Until") -> float | None:
    """The seconds from now to the end of a day (UTC) from a date field; None for no day. Raises InvalidRequest."""
    if not day:
        return None
    try:
        end = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
        left_s = end.timestamp() - now_s
    except (ValueError, OverflowError):
        raise InvalidRequest(f"“{name}” must be a day, such as 2030-12-31; leave it empty for no end.") from None
    if left_s <= 0:
        raise InvalidRequest(f"“{name}” lies in the past: choose a later day, or leave it empty for no end.")
    return left_s


def lined(texts: Sequence[str]) -> str:
    """The text of a field that takes one text per line."""
    return "\n".join(" ".join(text.split()) for text in texts)
