"""The audit as a file, written from a server and verifiable anywhere. Independent of the other commands."""

from pathlib import Path

import typer

from app.cli import render
from app.cli.client import Client
from app.cli.exits import Exit
from app.cli.settings import read_settings
from app.domain.errors import ErrataError
from app.store import audit
from app.store.seal import Seal

HASH_CHARS = 64


def export_log(client: Client, file: Path, *, json_: bool) -> None:
    """Write one line for each event, with everything that its hash covers. An export that breaks off keeps another
    name."""
    partial = file.with_name(f"{file.name}.partial")
    if file.exists():
        render.fail(f"{file} is there already: name a new file.")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as output:
            for row in client.lines("/log/export"):
                output.write(f"{row}\n")
                count += 1
        partial.rename(file)
    except OSError as error:
        render.fail(f"{file} cannot be written: {error.strerror}.")
    render.answer({"file": str(file), "events": count}, f"{count} events in {file}.", json_=json_)


def verify_file(file: Path, known: str | None, *, json_: bool) -> None:
    """Verify an exported log. Ends with exit code 1 at the first line that differs from what was exported."""
    secret = read_settings({}).log_secret
    try:
        with file.open(encoding="utf-8", newline="\n") as rows:
            verified = audit.verify(rows, Seal(None if secret is None else secret.get_secret_value()))
    except ErrataError as error:
        render.fail(f"{file}: {error.message}", title="Not what was exported")
    except UnicodeDecodeError:
        render.fail(f"{file} is not text.", title="Not what was exported")
    except OSError as error:
        render.fail(f"{file} cannot be read: {error.strerror}.", code=Exit.USAGE)
    if known is not None and known != verified.hash:
        render.fail(
            f"{file} ends with the hash {verified.hash}, not {known}: it is cut short, or belongs to another log."
        )
    if not verified.last:
        render.fail(f"{file} holds no event: there is nothing that it proves.")
    live = "" if verified.ledger is None else f"; {render.numbered(verified.ledger.live_count(), 'live edit')}"
    count = verified.last - verified.first + 1
    summary = {
        "file": str(file),
        "events": count,
        "first": verified.first,
        "revision": verified.last,
        "hash": verified.hash,
    }
    events = render.numbered(count, "event")
    text = f"{file} is whole: {events}, revisions {verified.first} to {verified.last}{live}.\nhash {verified.hash}"
    if known is None:
        text += "\nCompare it with `errata status`, or with what was noted down when the file was made."
    render.answer(summary, text, json_=json_)


def checked_hash(given: str | None) -> str | None:
    """The hash that was given, if any. Raises BadParameter for a text that is no hash."""
    if given is not None and (len(given) != HASH_CHARS or not all(char in "0123456789abcdef" for char in given)):
        raise typer.BadParameter("a hash has 64 digits, 0 to 9 and a to f.")
    return given
