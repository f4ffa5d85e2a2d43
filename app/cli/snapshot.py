"""`errata snapshot`: taken by the server, listed, or written to a file of its own from the store."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli import render
from app.cli.client import Client
from app.cli.store import Url, new_file, opened
from app.store.upkeep import write_snapshot

snapshot = typer.Typer(
    help="Take a snapshot: what a server starts from in place of a long log.", invoke_without_command=True
)


@snapshot.callback()
def take(context: typer.Context) -> None:
    """Have the server take a snapshot now. It is kept beside the log."""
    if context.invoked_subcommand is None:
        client: Client = context.obj
        made = client.post("/snapshots", {})
        typer.echo(f"{made['id']}: revision {made['revision']}, {made['edits']} edits, {made['bytes']} bytes.")


@snapshot.command("list")
def list_snapshots(context: typer.Context) -> None:
    """List the snapshots beside the server's log, newest first."""
    found = context.obj.get("/snapshots")["snapshots"]
    if not found:
        typer.echo("No snapshots.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "REVISION", "EDITS", "BYTES", "TAKEN (UTC)"):
        table.add_column(name, no_wrap=True)
    for each in found:
        at = render.moment(each["at"])
        table.add_row(each["id"], str(each["revision"]), str(each["edits"]), str(each["bytes"]), at)
    render.out().print(table)


@snapshot.command()
def write(
    file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)],
    url: Url = None,
) -> None:
    """Write a snapshot to a file: a log that begins with it, to be served or imported. Needs no server."""
    with opened(url, must_exist=True) as log, new_file(file) as new:
        manifest = write_snapshot(log, new, time.time())
    typer.echo(f"{file} holds revision {manifest.revision} of {log.url}: {manifest.edits} edits.")
