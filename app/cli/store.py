"""`errata store`: a log looked after on this machine, without a server or a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from app.cli import render
from app.cli.settings import open_store
from app.domain.errors import ErrataError
from app.domain.ledger import Ledger
from app.store.base import Log
from app.store.codec import GENESIS
from app.store.sqlite import SqliteLog

store = typer.Typer(help="Check a log, move it to another store, or carry it in a file.")
Url = Annotated[str | None, typer.Option("--store", help="Where the log lives. [default: as `errata serve`]")]


@store.command()
def check(url: Url = None) -> None:
    """Read every entry: hashes, links, revisions, and that the whole folds into a ledger."""
    with _opened(url, must_exist=True) as log:
        ledger, last = Ledger(), GENESIS
        with _progress(log) as advance:
            for event, entry_hash in log.follow(0, GENESIS):
                ledger.apply(event)
                last = entry_hash
                advance()
    typer.echo(f"{log.url} is whole: {ledger.revision} events, {ledger.live_count()} edits live.")
    typer.echo(f"hash {last}")


@store.command()
def migrate(
    source: Annotated[str, typer.Argument(help="URL of the log to copy.")],
    target: Annotated[str, typer.Argument(help="URL of the log to fill: it must be empty.")],
) -> None:
    """Copy a log, entry for entry: the same revisions, the same hashes. The source is only read."""
    with _opened(source, must_exist=True) as old, _opened(target) as new:
        count = _copy(old, new)
    typer.echo(f"{count} events copied from {old.url} to {new.url}; the hashes agree.")


@store.command()
def export(
    file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)],
    url: Url = None,
) -> None:
    """Copy the log into one file (of SQLite), for keeping or carrying."""
    if file.exists():
        render.fail(f"{file} is there already: name a new file.")
    with _opened(url, must_exist=True) as log:
        _fill(file, log)
    typer.echo(f"{file} holds the log of {log.url}.")


@store.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `errata store export` wrote.", exists=True, dir_okay=False)],
    url: Url = None,
) -> None:
    """Fill an empty store from a file that `export` wrote."""
    with _opened(f"sqlite:///{file.absolute()}") as old, _opened(url) as new:
        count = _copy(old, new)
    typer.echo(f"{count} events copied from {file} to {new.url}; the hashes agree.")


def _fill(file: Path, log: Log) -> None:
    """Under another name until it is whole: what an interrupted export leaves does not look like an export."""
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    new = SqliteLog(partial)
    try:
        _copy(log, new)
    finally:
        new.close()
    partial.rename(file)


def _copy(old: Log, new: Log) -> int:
    if new.head():
        render.fail(f"{new.url} holds {new.head()} events already: name an empty store.")
    last, copied = GENESIS, GENESIS
    with _progress(old) as advance:
        for event, entry_hash in old.follow(0, GENESIS):
            last, copied = entry_hash, new.append(event)
            advance()
    if last != copied:
        render.fail(f"The copy's last hash is {copied}, not {last}: do not use {new.url}.")
    return new.head()


@contextmanager
def _opened(url: str | None, *, must_exist: bool = False) -> Iterator[Log]:
    try:
        log = open_store(url, must_exist=must_exist)
        try:
            yield log
        finally:
            log.close()
    except ErrataError as error:
        render.fail(error.message)
    except OSError as error:
        render.fail(f"The log cannot be opened: {error}.")


@contextmanager
def _progress(log: Log) -> Iterator[Callable[[], None]]:
    with Progress(transient=True) as progress:
        task = progress.add_task("Reading the log", total=log.head())
        yield lambda: progress.advance(task)
