"""`errata log`: every change, shown, exported for an audit, or verified entry by entry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client
from app.cli.look import PAGE
from app.cli.store import Url, check

log = typer.Typer(help="Every change, oldest first, with who made it and why.", invoke_without_command=True)


@log.callback()
def show(
    context: typer.Context,
    after: Annotated[int | None, typer.Option(min=0, help="Only events above this revision.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 100,
    json_: Annotated[bool, typer.Option("--json", help="As JSON, one event a line.")] = False,
) -> None:
    """Show the log: every change, oldest first, with who made it and why."""
    if context.invoked_subcommand is not None:
        return
    listed: list[Any] = []
    more = False
    for event in _events(context.obj, after):
        if len(listed) == limit:
            more = True
            break
        listed.append(event)
    if json_:
        for event in listed:
            typer.echo(json.dumps(event, ensure_ascii=False))
    elif listed:
        render.event_table(listed)
        if more:
            typer.echo(f"There is more: go on with --after {listed[-1]['revision']}.")
    else:
        typer.echo("No events.")


@log.command()
def export(context: typer.Context, file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)]) -> None:
    """Write every event to a file for an audit, as JSON, one a line. Tensors are left out: `errata store export`."""
    count = 0
    try:
        with file.open("x", encoding="utf-8") as output:
            for event in _events(context.obj, None):
                output.write(json.dumps(event, ensure_ascii=False) + "\n")
                count += 1
    except FileExistsError:
        render.fail(f"{file} is there already: name a new file.")
    except OSError as error:
        render.fail(f"{file} cannot be written: {error.strerror}.")
    typer.echo(f"{count} events in {file}.")


@log.command()
def verify(url: Url = None) -> None:
    """Read the stored log itself, without a server: every hash, every link, and that it folds into a ledger."""
    check(url)


def _events(client: Client, after: int | None) -> Iterator[Any]:
    while True:
        page = client.get("/log", after=after, limit=PAGE)
        yield from page["events"]
        after = page["next_after"]
        if after is None:
            return
