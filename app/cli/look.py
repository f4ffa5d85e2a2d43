"""`errata edits`: look, change nothing."""

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client, path_of

PAGE = 500
"""The most that the server answers at once."""
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def edits(
    context: typer.Context,
    edit_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one in full.")] = None,
    state: Annotated[
        str | None, typer.Option(help="live, disabled, superseded, expired, rolled_back or staged.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only of this namespace.")] = None,
    q: Annotated[str | None, typer.Option("--q", help="Text in prompt, target or subject.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 50,
    json_: Json = False,
) -> None:
    """List edits, newest first, or show one with its history."""
    client: Client = context.obj
    if edit_id is not None:
        found = client.get(path_of("edits", edit_id))
        render.as_json(found) if json_ else render.edit_detail(found)
        return
    listed: list[Any] = []
    cursor = None
    while len(listed) < limit:
        size = min(PAGE, limit - len(listed))
        page = client.get("/edits", state=state, namespace=namespace, q=q, limit=size, cursor=cursor)
        listed.extend(page["edits"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if json_:
        render.as_json(listed)
    elif listed:
        render.edit_table(listed)
        if cursor is not None:
            typer.echo(f"There are more than {limit}: raise --limit, or narrow with --state, --namespace, --q.")
    else:
        typer.echo("No edits.")
