"""`errata webhooks`: the addresses that are notified of changes."""

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import path_of
from app.cli.exits import Exit
from app.cli.options import Json, Reason
from app.cli.tables import Column, print_table
from app.domain.webhooks import KINDS, USUAL

webhooks = typer.Typer(help="Addresses that are notified of changes, with signed messages.", no_args_is_help=True)
HookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id: `errata webhooks list` shows it.")]
COLUMNS = (
    Column(name="ID"),
    Column(name="URL", least=16, fold=True),
    Column(name="TELLS OF", least=8),
    Column(name="NAMESPACES", least=8, drop=1),
)
DELIVERIES = (
    Column(name="DELIVERY"),
    Column(name="OUTCOME"),
    Column(name="ATTEMPTS", right=True, drop=2),
    Column(name="AT (UTC)", drop=1),
    Column(name="PROBLEM", least=8, drop=3),
)


@webhooks.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where changes are posted: http or https.")],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(KINDS)}; may be repeated. [default: {', '.join(USUAL)}]",
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="A namespace of whose changes it is notified; may be repeated. [default: all]"),
    ] = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Set up a webhook and show its secret, this once."""
    body = {"url": url, "kinds": on or None, "namespaces": namespace or None, "reason": reason}
    made = context.obj.post("/webhooks", body)
    if json_:
        render.as_json(made)
        return
    typer.echo(
        f"{made['id']} is notified of {', '.join(made['kinds'])}. Keep its secret, it is not shown again:", err=True
    )
    typer.echo(made["secret"])


@webhooks.command("list")
def list_webhooks(context: typer.Context, json_: Json = False) -> None:
    """List the webhooks."""
    _listed(context.obj.get("/webhooks"), json_=json_)


@webhooks.command()
def remove(context: typer.Context, hook_id: HookId, reason: Reason = None, json_: Json = False) -> None:
    """Remove a webhook: nothing more is sent to it."""
    left = context.obj.post(path_of("webhooks", hook_id, "remove"), {"reason": reason})
    render.answer(left, f"{hook_id} is removed.", json_=json_)


@webhooks.command("test")
def try_(context: typer.Context, hook_id: HookId, json_: Json = False) -> None:
    """Send a message now and show its outcome. Exits with 1 if it did not arrive."""
    found = context.obj.post(path_of("webhooks", hook_id, "test"), {})
    arrived = found["outcome"] == "delivered"
    text = f"It arrived: {found['status']}." if arrived else f"It did not arrive. {found['problem']}"
    render.answer(found, text, json_=json_)
    if not arrived:
        raise typer.Exit(Exit.FAILED)


@webhooks.command()
def deliveries(context: typer.Context, hook_id: HookId, json_: Json = False) -> None:
    """List the last messages and their outcomes."""
    found = context.obj.get(path_of("webhooks", hook_id, "deliveries"))
    if json_:
        render.as_json(found)
        return
    rows = [
        (
            each["id"],
            each["outcome"].replace("_", " "),
            str(each["attempts"]),
            render.moment(each["at"]),
            render.line(each["problem"] or ""),
        )
        for each in found["deliveries"]
    ]
    print_table(render.out(), DELIVERIES, rows)
    typer.echo(f"It was notified of changes up to revision {found['told_to']}; the server is at {found['revision']}.")


def _listed(found: dict[str, Any], *, json_: bool) -> None:
    if json_:
        render.as_json(found)
    elif found["webhooks"]:
        rows = [
            (each["id"], render.line(each["url"]), ", ".join(each["kinds"]), ", ".join(each["namespaces"]) or "all")
            for each in found["webhooks"]
        ]
        print_table(render.out(), COLUMNS, rows)
    else:
        typer.echo("No webhooks.")
