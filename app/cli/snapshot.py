"""`errata snapshot`: snapshots taken by the server, listed, or written from the store to a separate file."""

import time
from pathlib import Path
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client
from app.cli.options import Json, Store
from app.cli.store import new_file, opened
from app.cli.tables import Column, print_table
from app.store.upkeep import write_snapshot

COLUMNS = (
    Column(name="ID"),
    Column(name="REVISION", right=True),
    Column(name="EDITS", drop=1, right=True),
    Column(name="BYTES", drop=2, right=True),
    Column(name="TAKEN (UTC)", drop=3),
)
snapshot = typer.Typer(
    help="Take a snapshot: what a server starts from in place of a long log.", invoke_without_command=True
)


@snapshot.callback()
def take(context: typer.Context, json_: Json = False) -> None:
    """Have the server take a snapshot now. It is stored beside the log."""
    if context.invoked_subcommand is None:
        client: Client = context.obj
        taken = client.post("/snapshots", {})
        text = f"{taken['id']}: revision {taken['revision']}, {taken['edits']} edits, {taken['bytes']} bytes."
        render.answer(taken, text, json_=json_)


@snapshot.command("list")
def list_snapshots(context: typer.Context, json_: Json = False) -> None:
    """List the snapshots beside the server's log, newest first."""
    snapshots = context.obj.get("/snapshots")["snapshots"]
    if json_:
        render.as_json(snapshots)
    elif snapshots:
        numbers = ("revision", "edits", "bytes")
        rows = [(each["id"], *(str(each[name]) for name in numbers), render.moment(each["at"])) for each in snapshots]
        print_table(render.out(), COLUMNS, rows)
    else:
        typer.echo("No snapshots.")


@snapshot.command()
def write(
    file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)],
    url: Store = None,
    json_: Json = False,
) -> None:
    """Write a snapshot to a file: a log that begins with it, to be served or imported. Needs no server."""
    with opened(url, must_exist=True) as log, new_file(file) as new:
        manifest = write_snapshot(log, new, time.time())
    summary = {"file": str(file), "store": log.url, "revision": manifest.revision, "edits": manifest.edits}
    text = f"{file} holds revision {manifest.revision} of {log.url}: {render.numbered(manifest.edits, 'edit')}."
    render.answer(summary, text, json_=json_)
