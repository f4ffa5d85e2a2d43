"""`errata rollback`, `disable`, `enable`, `switch`: take edits out, and let them back in."""

from enum import StrEnum
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, path_of

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Edits, as `errata edits` lists them.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit trail.")]


class Position(StrEnum):
    """Of the kill switch."""

    ON = "on"
    OFF = "off"


def rollback(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The edits to take back.")] = None,
    to_revision: Annotated[int | None, typer.Option(help="Take back every edit committed after this revision.")] = None,
    reason: Reason = None,
) -> None:
    """Take edits back: those named, in one step, or all since a revision."""
    if (to_revision is None) == (not ids):
        raise typer.BadParameter("Give the ids of edits, or --to-revision.")
    client: Client = context.obj
    answer = client.post("/rollback", {"ids": ids or None, "to_revision": to_revision, "reason": reason})
    render.changed(answer["edits"], answer["revision"])


def disable(context: typer.Context, ids: Ids, reason: Reason = None) -> None:
    """Take edits out for a while."""
    _each(context, "disable", ids, reason)


def enable(context: typer.Context, ids: Ids, reason: Reason = None) -> None:
    """Let disabled edits answer again."""
    _each(context, "enable", ids, reason)


def _each(context: typer.Context, verb: str, ids: list[str], reason: str | None) -> None:
    client: Client = context.obj
    for edit_id in ids:
        edit = client.post(path_of("edits", edit_id, verb), {"reason": reason})
        render.changed([edit], edit["revision"])


def switch(
    context: typer.Context,
    position: Annotated[Position, typer.Argument(metavar="on|off", help="Whether edits may answer.")],
    namespace: Annotated[str | None, typer.Option(help="Only in this namespace; all if left out.")] = None,
    reason: Reason = None,
) -> None:
    """The kill switch: while it is off no edit answers."""
    client: Client = context.obj
    body = {"on": position is Position.ON, "namespace": namespace, "reason": reason}
    answer = client.post("/switch", body)
    where = f"of the namespace {answer['namespace']}" if answer["namespace"] else "of all namespaces"
    typer.echo(f"Edits {where} are switched {position.value}; revision {answer['revision']}")
