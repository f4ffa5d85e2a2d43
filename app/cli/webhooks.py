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
    url: Annotated[str, typer.Argument(help="The address that changes are posted to: http or https.")],
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
    webhook = context.obj.post("/webhooks", body)
    if json_:
        render.as_json(webhook)
        return
    typer.echo(
        f"{webhook['id']} is notified of {', '.join(webhook['kinds'])}. Keep its secret, it is not shown again:",
        err=True,
    )
    typer.echo(webhook["secret"])


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
    delivery = context.obj.post(path_of("webhooks", hook_id, "test"), {})
    arrived = delivery["outcome"] == "delivered"
    text = f"It arrived: {delivery['status']}." if arrived else f"It did not arrive. {delivery['problem']}"
    render.answer(delivery, text, json_=json_)
    if not arrived:
        raise typer.Exit(Exit.FAILED)


@webhooks.command()
def deliveries(context: typer.Context, hook_id: HookId, json_: Json = False) -> None:
    """List the last messages and their outcomes."""
    answer = context.obj.get(path_of("webhooks", hook_id, "deliveries"))
    if json_:
        render.as_json(answer)
        return
    rows = [
        (
            each["id"],
            each["outcome"].replace("_", " "),
            str(each["attempts"]),
            render.moment(each["at"]),
            render.line(each["problem"] or ""),
        )
        for each in answer["deliveries"]
    ]
    print_table(render.out(), DELIVERIES, rows)
    typer.echo(f"It was notified of changes up to revision {answer['told_to']}; the server is at {answer['revision']}.")


def _listed(answer: dict[str, Any], *, json_: bool) -> None:
    if json_:
        render.as_json(answer)
    elif answer["webhooks"]:
        rows = [
            (each["id"], render.line(each["url"]), ", ".join(each["kinds"]), ", ".join(each["namespaces"]) or "all")
            for each in answer["webhooks"]
        ]
        print_table(render.out(), COLUMNS, rows)
    else:
        typer.echo("No webhooks.")
