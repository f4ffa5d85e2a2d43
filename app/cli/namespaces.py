"""`errata namespaces` and `errata promote`: list namespaces, set them up, and promote edits between them."""

from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.exits import Exit
from app.cli.options import DryRun, Json, Reason
from app.cli.outlook import namespace_table
from app.cli.proposals import print_made

namespaces = typer.Typer(help="The namespaces, with what is in them and whether their edits answer.")


@namespaces.callback(invoke_without_command=True)
def list_namespaces(context: typer.Context, json_: Json = False) -> None:
    """List the namespaces, with what is in them and whether their edits answer; or set one up."""
    if context.invoked_subcommand is None:
        answer = context.obj.get("/namespaces")
        render.as_json(answer) if json_ else namespace_table(answer["namespaces"])


@namespaces.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="1 to 64 letters, digits, '_', '.' or '-'.")],
    description: Annotated[str, typer.Option(help="The purpose of the namespace, for people.")] = "",
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Set up a namespace, or change its description."""
    body = {"description": description, "reason": reason}
    namespace = context.obj.put(path_of("namespaces", name), body)
    described = f"{namespace['name']}: {namespace['description']}" if namespace["description"] else namespace["name"]
    render.answer(namespace, f"The namespace {described} is set up.", json_=json_)


def promote(
    context: typer.Context,
    source: Annotated[str, typer.Option("--from", help="The namespace that they are of.")],
    to: Annotated[str, typer.Option("--to", help="The namespace to make them in.")],
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="The edits to promote: ids, or beginnings of them. [default: all live]"),
    ] = None,
    dry_run: DryRun = False,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Make edits of one namespace in another, each verified there. Exits with 6 if one of them was refused."""
    client: Client = context.obj
    whole = [client.whole_id(each) for each in ids or ()] or None
    body: dict[str, Any] = {"from_namespace": source, "to_namespace": to, "ids": whole, "reason": reason}
    answer = client.post("/edits/promote", {**body, "dry_run": dry_run or None})
    if "proposed_at" in answer:
        render.as_json(answer) if json_ else print_made(answer)
        return
    refused = [each for each in answer["edits"] if dry_run and not each["report"].get("would_commit", True)]
    if json_:
        render.as_json(answer)
    else:
        for edit in answer["edits"]:
            held = "would be refused" if edit in refused else "would be made" if dry_run else f"is {edit['id']}"
            text = f"{edit['promoted_from']} {held} in {to}: {edit['prompt']!r} -> {edit['target']!r}"
            render.out().print(render.line(text))
        for failure in answer["failures"]:
            problem = failure["problem"]
            render.out().print(render.line(f"{problem['promoted_from']} was refused: {problem['detail']}"))
        typer.echo(f"{len(answer['edits']) - len(refused)} of {_count(answer)} edits, revision {answer['revision']}")
    if refused or answer["failures"]:
        raise typer.Exit(Exit.REFUSED)


def _count(answer: dict[str, Any]) -> int:
    return len(answer["edits"]) + len(answer["failures"])
