"""Options that several commands share, each defined once."""

from typing import Annotated

import typer

from app.cli import render


def _chosen(value: bool) -> bool:
    if value:
        render.AS_JSON.set(True)
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs; errors too.", callback=_chosen)]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit trail.")]
Namespace = Annotated[str | None, typer.Option(help="The namespace. [default: default]")]
EditId = Annotated[str, typer.Argument(metavar="ID", help="The edit: its id, or a beginning of it that no other has.")]
EditIds = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Edits: their ids, or beginnings that no others have.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would change.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Paraphrases = Annotated[list[str] | None, typer.Option(help="A prompt that asks the same; may be repeated.")]
CounterExamples = Annotated[
    list[str] | None, typer.Option(help="A prompt close by that is out of scope; may be repeated.")
]
Aliases = Annotated[list[str] | None, typer.Option(help="Another name of the subject; may be repeated.")]
Probes = Annotated[list[str] | None, typer.Option(help="A prompt whose answer must not change; may be repeated.")]
Store = Annotated[str | None, typer.Option("--store", help="The URL of the log. [default: as `errata serve`]")]
TargetStore = Annotated[str | None, typer.Option("--store", help="The log to write to. [default: as `errata serve`]")]
