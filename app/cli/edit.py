"""`errata edit`: correct an answer. Independent of the editors."""

import re
from typing import Annotated

import typer

from app.cli import render
from app.cli.client import Client
from app.cli.job_progress import PREVIEW, carried_out
from app.cli.options import Aliases, CounterExamples, Json, Paraphrases, Probes, Reason
from app.cli.proposals import print_made

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: str) -> float:
    """A duration such as 90, 30m, 12h or 7d, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time: use 90 (seconds), 30m, 12h or 7d.")
    return float(match[1]) * UNITS_S[match[2]]


def edit(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="The prompt whose answer is to change.")],
    target: Annotated[str, typer.Argument(help="The whole answer that it should have.")],
    subject: Annotated[str | None, typer.Option(help="The person or thing that the prompt is about.")] = None,
    alias: Aliases = None,
    paraphrase: Paraphrases = None,
    probe: Probes = None,
    counter_example: CounterExamples = None,
    supersede: Annotated[
        list[str] | None, typer.Option(help="The id of an edit that it takes the place of; may be repeated.")
    ] = None,
    read: Annotated[
        int | None, typer.Option(metavar="REVISION", help="Take the place of what you have read at this revision.")
    ] = None,
    widen: Annotated[
        float | None, typer.Option(help="Reach farther (above 1) or less far: multiplies the odds of being the same.")
    ] = None,
    reason: Reason = None,
    expires_in: Annotated[
        float | None, typer.Option(parser=duration_s, metavar="TIME", help="End by itself after 90 (s), 30m, 12h, 7d.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="The namespace whose requests see it.")] = None,
    editor: Annotated[str | None, typer.Option(help="The editor that learns it.")] = None,
    preset: Annotated[str | None, typer.Option(help="The editor's settings: serving or paper.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit, verify and report, but do not commit.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Commit even if verification fails.")] = False,
    json_: Json = False,
) -> None:
    """Correct an answer: PROMPT, and every question that asks the same, to be answered with TARGET."""
    client: Client = context.obj
    body = {
        "prompt": prompt,
        "target": target,
        "subject": subject,
        "aliases": alias or None,
        "paraphrases": paraphrase or None,
        "probes": probe or None,
        "counter_examples": counter_example or None,
        "supersede": [client.whole_id(each) for each in supersede or ()] or None,
        "widen": widen,
        "reason": reason,
        "expires_in": expires_in,
        "namespace": namespace,
        "editor": editor,
        "preset": preset,
        "dry_run": dry_run or None,
        "force": force or None,
    }
    answer = carried_out(client, "POST", "/edit", body, PREVIEW if dry_run else "edit", if_match=read)
    render.as_json(answer) if json_ else print_made(answer)
