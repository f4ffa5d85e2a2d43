"""`errata job`: shows the progress of an edit that nobody waits for, and cancels it."""

from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client, path_of
from app.cli.job_progress import descriptions, result_of
from app.cli.options import Json
from app.cli.proposals import is_proposal, print_made


def job(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job, as the server named it.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="End it: nothing more of it goes live.")] = False,
    json_: Json = False,
) -> None:
    """Show the progress of a job, an edit that the server makes while nobody waits; or cancel it."""
    client: Client = context.obj
    path = path_of("jobs", job_id)
    shown = client.delete(path) if cancel else client.get(path)
    if json_:
        render.as_json(shown)
        return
    render.say(", ".join(filter(None, descriptions(shown))) + ".")
    if shown["outcome"] in ("done", "failed"):
        result = result_of(shown)
        for answer in [result] if is_proposal(result) else result.get("edits", [result]):
            print_made(answer)
