"""`errata store`: maintenance of a log on this machine, without a server or a model."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from app.cli import render
from app.cli.options import Json, Store
from app.cli.settings import open_store
from app.domain.errors import ErrataError
from app.store import upkeep
from app.store.base import Log

store = typer.Typer(help="Check a log, move it to another store, carry it in a file, or trim it.")
SOURCE_SECRET = "ERRATA_SOURCE_LOG_SECRET"


@store.command()
def check(url: Store = None, json_: Json = False) -> None:
    """Read every entry and snapshot: hashes, links, revisions, and that the whole folds into a ledger."""
    with opened(url, must_exist=True) as log:
        first = log.first()
        with _progress(log) as advance:
            ledger, last, snapshots = upkeep.check(log, advance)
    if json_:
        summary = {"store": log.url, "revision": ledger.revision, "first": first, "live_edits": ledger.live_count(),
                "snapshots": [each.revision for each in snapshots], "hash": last}  # fmt: skip
        render.as_json(summary)
        return
    begins = f" (entries from {first} on)" if first > 1 else ""
    typer.echo(
        f"{log.url} is whole: {render.numbered(ledger.revision, 'event')}{begins}, "
        f"{render.numbered(ledger.live_count(), 'live edit')}."
    )
    if snapshots:
        typer.echo(f"snapshots of revision {', '.join(str(each.revision) for each in snapshots)} agree with it")
    typer.echo(f"hash {last}")


@store.command()
def migrate(
    source: Annotated[str, typer.Argument(help="URL of the log to copy.")],
    target: Annotated[str, typer.Argument(help="URL of the log to fill: it must be empty.")],
    json_: Json = False,
) -> None:
    """Copy a log, entry for entry: the same revisions, the same hashes. The source is only read.

    A source that is sealed with another secret than ERRATA_LOG_SECRET is opened with ERRATA_SOURCE_LOG_SECRET (empty:
    with none); the copy is sealed with ERRATA_LOG_SECRET, and its hashes are its own.
    """
    with opened(source, must_exist=True, secret=os.environ.get(SOURCE_SECRET)) as old, opened(target) as new:
        _copy(old, new, json_=json_)


@store.command()
def export(
    file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)],
    url: Store = None,
    json_: Json = False,
) -> None:
    """Copy the log into one file (of SQLite), to keep or to transfer it."""
    with opened(url, must_exist=True) as log, new_file(file) as new:
        _copy(log, new, shown_as=file, json_=json_)


@store.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `errata store export` wrote.", exists=True, dir_okay=False)],
    url: Store = None,
    json_: Json = False,
) -> None:
    """Fill an empty store from a file that `export` or `errata snapshot write` wrote."""
    with opened(f"sqlite:///{file.absolute()}") as old, opened(url) as new:
        _copy(old, new, json_=json_)


@store.command()
def trim(
    archive: Annotated[
        Path, typer.Option(help="The newest file of `errata store export`.", exists=True, dir_okay=False)
    ],
    url: Store = None,
    json_: Json = False,
) -> None:
    """Delete the entries below the oldest snapshot, for good. All is checked first, and the archive must hold them."""
    kept = f"sqlite:///{archive.absolute()}"
    with opened(url, must_exist=True) as log, opened(kept) as archived, _progress(log) as advance:
        before, now = upkeep.trim(log, archived, advance)
    summary = {"store": log.url, "first": now, "first_before": before, "archive": str(archive)}
    text = f"{log.url} begins at revision {now} (before: {before}). Keep {archive}: it is the audit of the rest."
    render.answer(summary, text, json_=json_)


@contextmanager
def new_file(file: Path) -> Iterator[Log]:
    """An empty log in a new file. Until it is complete it has another name, so that an interrupted one is not mistaken
    for an export."""
    if file.exists():
        render.fail(f"{file} is there already: name a new file.")
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    with opened(f"sqlite:///{partial.absolute()}") as log:
        yield log
    partial.rename(file)


@contextmanager
def opened(url: str | None, *, must_exist: bool = False, secret: str | None = None) -> Iterator[Log]:
    """A log for the duration of a command; an error ends the command with its reason."""
    try:
        log = open_store(url, must_exist=must_exist, secret=secret)
        try:
            yield log
        finally:
            log.close()
    except ErrataError as error:
        render.fail_with_error(error)
    except OSError as error:
        render.fail(f"The log cannot be opened: {error}.")


def _copy(old: Log, new: Log, shown_as: object = None, *, json_: bool) -> None:
    with _progress(old) as advance:
        head, same = upkeep.copy(old, new, advance)
    hashes = "the hashes agree" if same else "its hashes are new, because it is sealed differently"
    summary = {"from": old.url, "to": str(shown_as or new.url), "events": head, "hashes_agree": same}
    render.answer(summary, f"{head} events copied from {old.url} to {shown_as or new.url}; {hashes}.", json_=json_)


@contextmanager
def _progress(log: Log) -> Iterator[Callable[[], None]]:
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("Reading the log", total=log.head() - log.first() + 1)
        yield lambda: progress.advance(task)
