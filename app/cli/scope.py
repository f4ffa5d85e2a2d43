"""`errata retune` and `errata probes`: whom edits reach, and whom none may."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.look import Json

Reason = Annotated[str | None, typer.Option(help="Why, for the audit trail.")]
Namespace = Annotated[str | None, typer.Option(help="The namespace. [default: default]")]


def retune(
    context: typer.Context,
    edit_id: Annotated[str, typer.Argument(metavar="ID", help="The edit, as `errata edits` lists it.")],
    widen: Annotated[
        float | None,
        typer.Option(help="Multiply the odds at which a question counts as the same: 2 reaches farther, 0.5 less far."),
    ] = None,
    paraphrase: Annotated[list[str] | None, typer.Option(help="A prompt that asks the same; may be repeated.")] = None,
    counter_example: Annotated[
        list[str] | None, typer.Option(help="A prompt close by that is out of scope; may be repeated.")
    ] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name of the subject; may be repeated.")] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="A prompt whose answer must not change; may be repeated.")
    ] = None,
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Change it even if verification fails.")] = False,
) -> None:
    """Widen or narrow the scope of a live edit, as a new revision."""
    client: Client = context.obj
    body = {
        "widen": widen,
        "paraphrases": paraphrase or None,
        "counter_examples": counter_example or None,
        "aliases": alias or None,
        "probes": probe or None,
        "reason": reason,
        "force": force or None,
    }
    edit = client.patch(path_of("edits", edit_id), body)
    render.changed([edit], edit["revision"])


def probes(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(help="Set them: a prompt a line, in place of those there are.", exists=True, dir_okay=False),
    ] = None,
    namespace: Namespace = None,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Show, or set, the prompts of a namespace whose answers no edit may change."""
    client: Client = context.obj
    if file is None:
        found = client.get("/probes", namespace=namespace)
    else:
        prompts = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = client.put("/probes", {"prompts": prompts, "namespace": namespace, "reason": reason})
    if json_:
        render.as_json(found)
        return
    for prompt in found["prompts"]:
        render.out().print(render.line(prompt))
    typer.echo(f"{len(found['prompts'])} probes of the namespace {found['namespace']}, revision {found['revision']}")
