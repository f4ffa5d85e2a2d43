"""`errata rollback`, `disable`, `enable`, `switch`: take edits out, and let them back in."""

from enum import StrEnum
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.options import EditIds, Json, Reason


class Position(StrEnum):
    """Of the kill switch."""

    ON = "on"
    OFF = "off"


def rollback(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="The edits to take back: ids, or beginnings of them.")
    ] = None,
    to_revision: Annotated[int | None, typer.Option(help="Take back every edit committed after this revision.")] = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Take edits back: those named, in one step, or all since a revision."""
    if (to_revision is None) == (not ids):
        raise typer.BadParameter("Give the ids of edits, or --to-revision.")
    client: Client = context.obj
    whole = [client.whole_id(each) for each in ids or ()]
    answer = client.post("/rollback", {"ids": whole or None, "to_revision": to_revision, "reason": reason})
    render.as_json(answer) if json_ else render.changed(answer["edits"], answer["revision"])


def disable(context: typer.Context, ids: EditIds, reason: Reason = None, json_: Json = False) -> None:
    """Take edits out for a while."""
    _each(context, "disable", ids, reason, json_=json_)


def enable(context: typer.Context, ids: EditIds, reason: Reason = None, json_: Json = False) -> None:
    """Let disabled edits answer again."""
    _each(context, "enable", ids, reason, json_=json_)


def _each(context: typer.Context, verb: str, ids: list[str], reason: str | None, *, json_: bool) -> None:
    client: Client = context.obj
    whole = [client.whole_id(each) for each in ids]  # all of them first: a mistyped one must not leave half done
    done = []
    for edit_id in whole:
        edit = client.post(path_of("edits", edit_id, verb), {"reason": reason})
        done.append(edit)
        if not json_:
            render.changed([edit], edit["revision"])
    if json_:
        render.as_json({"edits": done, "revision": done[-1]["revision"]})


def switch(
    context: typer.Context,
    position: Annotated[Position, typer.Argument(metavar="on|off", help="Whether edits may answer.")],
    namespace: Annotated[str | None, typer.Option(help="Only in this namespace; all if left out.")] = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """The kill switch: while it is off no edit answers."""
    client: Client = context.obj
    body = {"on": position is Position.ON, "namespace": namespace, "reason": reason}
    answer = client.post("/switch", body)
    where = f"of the namespace {answer['namespace']}" if answer["namespace"] else "of all namespaces"
    text = f"Edits {where} are switched {position.value}; revision {answer['revision']}"
    render.answer(answer, text, json_=json_)
