"""`errata rollback`, `disable`, `enable` and `switch`: take edits out, and let them answer again."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.options import DryRun, EditIds, Json, Reason, Yes
from app.cli.outlook import confirm, revived, rollback_outlook, switch_table


class SwitchPosition(StrEnum):
    """A position of the edit switch."""

    ON = "on"
    OFF = "off"


def rollback(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="The edits to take back: ids, or beginnings of them.")
    ] = None,
    to_revision: Annotated[
        int | None, typer.Option(help="Take back every edit of the namespace that was committed after this revision.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="With --to-revision: the namespace that goes back. [default: default]")
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="With --to-revision: all namespaces go back.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Take edits back: those named, in one step, or all of a namespace since a revision, after a confirmation."""
    if (to_revision is None) == (not ids):
        raise typer.BadParameter("Give the ids of edits, or --to-revision.")
    if ids and (namespace or all_namespaces):
        raise typer.BadParameter("--namespace and --all-namespaces go with --to-revision.")
    if namespace and all_namespaces:
        raise typer.BadParameter("Give --namespace or --all-namespaces, not both.")
    client: Client = context.obj
    body: dict[str, Any] = {"ids": [client.whole_id(each) for each in ids or ()] or None, "to_revision": to_revision}
    if to_revision is not None:
        body |= {"all_namespaces": True} if all_namespaces else {"namespace": namespace}
    seen: int | None = None
    if dry_run or to_revision is not None:
        outlook = client.post("/rollback", {**body, "dry_run": True})
        seen = outlook["revision"]
        if dry_run and json_:
            render.as_json(outlook)
        elif dry_run or not (yes or json_):
            rollback_outlook(outlook)
        if dry_run:
            return
    if to_revision is not None and outlook["edits"]:
        where = "of all namespaces" if all_namespaces else f"of the namespace {namespace or 'default'}"
        confirm(f"Take back {len(outlook['edits'])} edits {where}?", yes=yes)
    # edits committed between the question and the answer are not taken back unseen
    answer = client.post("/rollback", {**body, "reason": reason}, if_match=seen)
    if json_:
        render.as_json(answer)
        return
    revived(answer["revived"])
    render.changed(answer["edits"], answer["revision"])


def disable(context: typer.Context, ids: EditIds, reason: Reason = None, json_: Json = False) -> None:
    """Take edits out for a while."""
    _each(context, "disable", ids, reason, json_=json_)


def enable(context: typer.Context, ids: EditIds, reason: Reason = None, json_: Json = False) -> None:
    """Let disabled edits answer again."""
    _each(context, "enable", ids, reason, json_=json_)


def _each(context: typer.Context, verb: str, ids: list[str], reason: str | None, *, json_: bool) -> None:
    client: Client = context.obj
    whole = [client.whole_id(each) for each in ids]  # all of them first: a mistyped id must not leave half done
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
    position: Annotated[
        SwitchPosition | None,
        typer.Argument(
            metavar="[on|off]", help="The position: with `off` no edit answers. If left out, the switches are shown."
        ),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only in this namespace; all if left out.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Show whether edits are switched on, or switch them off or on. Switching asks for confirmation."""
    client: Client = context.obj
    if position is None:
        switches = client.get("/switch")
        render.as_json(switches) if json_ else switch_table(switches)
        return
    body = {"on": position is SwitchPosition.ON, "namespace": namespace}
    where = f"of the namespace {namespace}" if namespace else "of all namespaces"
    outlook = client.post("/switch", {**body, "dry_run": True})
    consequence = f"{outlook['live_edits']} live edits {where} would be switched {position.value}"
    if dry_run:
        render.answer(outlook, f"{consequence}; nothing was changed.", json_=json_)
        return
    confirm(f"{consequence}. Go on?", yes=yes)
    answer = client.post("/switch", {**body, "reason": reason})
    text = f"Edits {where} are switched {position.value}; revision {answer['revision']}"
    render.answer(answer, text, json_=json_)
