"""`errata keys`: who may come in. Works on the log itself: the first key is made before there is a server."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli import render
from app.cli.settings import open_store
from app.domain.errors import ErrataError
from app.domain.events import Origin
from app.domain.keys import Role
from app.service.keyring import Keyring
from app.service.records import Records

keys = typer.Typer(help="Keys and roles. While no key was ever made, whoever reaches the server is let in.")
Store = Annotated[str | None, typer.Option(help="Where the log lives. [default: as `errata serve`]")]


@keys.command()
def create(
    context: typer.Context,
    role: Annotated[Role, typer.Option(help="generator, reader, editor or admin.")],
    name: Annotated[str, typer.Option(help="Whose key it is: stands in the audit trail.")],
    store: Store = None,
) -> None:
    """Make a key and show it, this once."""
    with _records(store, must_exist=False) as records:
        key, text = asyncio.run(_keyring(records).create(role, name, _origin(context)))
        url = records.log.url
    where = Path(url.removeprefix("sqlite:///")).absolute() if url.startswith("sqlite:///") else url
    typer.echo(f"{key.id} ({key.role}, {key.name}) in {where}. Keep this, it is not shown again:", err=True)
    typer.echo(text)


@keys.command("list")
def list_keys(store: Store = None) -> None:
    """List all keys ever made. Their secrets are nowhere."""
    with _records(store) as records:
        found = list(records.ledger.keys.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "ROLE", "NAME", "CREATED (UTC)", "REVOKED (UTC)"):
        table.add_column(name, no_wrap=True)
    for key in found:
        table.add_row(key.id, key.role, render.line(key.name), _moment(key.created_at_s), _moment(key.revoked_at_s))
    if found:
        render.out().print(table)
    else:
        typer.echo("No keys.")


@keys.command()
def revoke(context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")], store: Store = None) -> None:
    """Close a key, on every server over this log, within a second."""
    with _records(store) as records:
        key = asyncio.run(_keyring(records).revoke(key_id, _origin(context)))
    typer.echo(f"{key.id} ({key.role}, {key.name}) is revoked.")


@contextmanager
def _records(store: str | None, *, must_exist: bool = True) -> Iterator[Records]:
    try:
        log = open_store(store, must_exist=must_exist)
        try:
            if log.url == "memory://":
                render.fail(f"{log.url} keeps nothing beyond its process: name another with --store.")
            records = Records(log)
            records.fold_all()
            yield records
        finally:
            log.close()
    except ErrataError as error:
        render.fail(error.message)
    except OSError as error:
        render.fail(f"The log cannot be opened: {error}.")


def _keyring(records: Records) -> Keyring:
    return Keyring(records, time.time)


def _origin(context: typer.Context) -> Origin:
    return Origin(actor=context.obj.actor, client="the command line")


def _moment(at_s: float | None) -> str:
    return "" if at_s is None else render.moment(datetime.fromtimestamp(at_s, UTC).isoformat())
