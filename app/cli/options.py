"""Options that several commands share, each defined once."""

from typing import Annotated

import typer

from app.cli import render


def _chosen(value: bool) -> bool:
    if value:
        render.AS_JSON.set(True)
    return value


Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs; errors too.", callback=_chosen)]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit trail.")]
Namespace = Annotated[str | None, typer.Option(help="The namespace. [default: default]")]
EditId = Annotated[str, typer.Argument(metavar="ID", help="The edit: its id, or a beginning of it that no other has.")]
EditIds = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Edits: their ids, or beginnings that no others have.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what it would change.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
