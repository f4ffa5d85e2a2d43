"""`errata edits` and `errata status`: show the edits and the server's state without changing anything."""

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.edit import duration_s
from app.cli.events import edit_detail
from app.cli.exits import Exit
from app.cli.options import Json

PAGE = 500
"""The most edits that the server returns in one answer."""


def edits(
    context: typer.Context,
    edit_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show this one in full: its id, or a beginning of it.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="live, disabled, superseded, expired, rolled_back or staged.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only of this namespace.")] = None,
    never_hit: Annotated[bool, typer.Option("--never-hit", help="Only those that have not answered yet.")] = False,
    expires_within: Annotated[
        float | None, typer.Option(parser=duration_s, metavar="TIME", help="Only those that end within 12h, 7d.")
    ] = None,
    q: Annotated[str | None, typer.Option("--q", help="Text in prompt, target or subject.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 50,
    json_: Json = False,
) -> None:
    """List edits, newest first, or show one with its history."""
    client: Client = context.obj
    if edit_id is not None:
        edit = client.get(path_of("edits", client.whole_id(edit_id)))
        render.as_json(edit) if json_ else edit_detail(edit)
        return
    listed: list[Any] = []
    cursor = None
    filters = {"state": state, "namespace": namespace, "q": q, "expires_within": expires_within}
    filters["never_hit"] = True if never_hit else None
    while len(listed) < limit:
        size = min(PAGE, limit - len(listed))
        page = client.get("/edits", limit=size, cursor=cursor, **filters)
        listed.extend(page["edits"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if json_:
        render.as_json(listed)
    elif listed:
        render.edit_table(listed)
    else:
        typer.echo("No edits.")
    if cursor is not None:
        more = f"There are more than {limit}: raise --limit, or narrow with --state, --namespace, --q."
        typer.echo(more, err=True)


def status(context: typer.Context, json_: Json = False) -> None:
    """Show the state of the server. Exits with 7 if it is not ready."""
    client: Client = context.obj
    code, state = client.get_any_status("/readyz")
    if not isinstance(state, dict) or "ready" not in state:
        render.fail(
            f"{client.url} answered {code}, and not as Errata does: is it the right address?",
            "Name another with --url or ERRATA_URL.",
            code=Exit.UNREACHABLE,
        )
    render.as_json(state) if json_ else render.server_state(client.url, state)
    if not state["ready"]:
        raise typer.Exit(int(Exit.BUSY))
