"""`errata generate`: ask the model. Passes the decoding parameters on as typed."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli import render
from app.cli.client import Client
from app.cli.options import Json


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    max_new_tokens: Annotated[int | None, typer.Option(help="The most tokens to answer with.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sample with this temperature; greedy if left out.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    no_edits: Annotated[bool, typer.Option("--no-edits", help="Answer without any edit.")] = False,
    revision: Annotated[int | None, typer.Option(help="See the edits as they were at this revision.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The namespace whose edits are seen.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Show what answered, and why.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show each token as it comes.")] = False,
    json_: Json = False,
) -> None:
    """Ask the model."""
    client: Client = context.obj
    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "edits": "off" if no_edits else None,
        "revision": revision,
        "namespace": namespace,
        "details": details or None,
    }
    body = {"inputs": prompt, "parameters": {name: value for name, value in given.items() if value is not None}}
    if stream:
        answer: dict[str, Any] = {}
        begun = False
        for answer in client.stream("/generate_stream", body):
            if json_:
                typer.echo(json.dumps(answer, ensure_ascii=False))
                continue
            text = render.plain(answer["token"]["text"])
            typer.echo(text if begun else text.lstrip(), nl=False)
            begun = begun or bool(text.strip())
        if json_:
            return
        typer.echo()
    else:
        answer = client.post("/generate", body)
        if json_:
            render.as_json(answer)
            return
        typer.echo(render.plain(answer["generated_text"]).strip())  # the leading blank is for programs
    if details:
        print_details(answer["details"])


def _why(hit: dict[str, Any]) -> str:
    """The reason in words, or the signals of editors as published, which give no reason."""
    if hit.get("why"):
        return str(hit["why"])
    return ", ".join(f"{name} {s['value']:.4g} (bound {s['bound']:.4g})" for name, s in hit["signals"].items())


def print_details(answer: dict[str, Any]) -> None:
    """Print the details of an answer."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in ("finish_reason", "prompt_tokens", "generated_tokens", "seed", "revision"):
        if answer[name] is not None:
            grid.add_row(name, str(answer[name]))
    for hit in answer["edits"]:
        grid.add_row("answered by", render.line(f"{hit['id']} ({hit['editor']}) {_why(hit)}"))
    for hit in answer["not_given"]:
        grid.add_row("in scope, target not given", render.line(f"{hit['id']} ({hit['editor']}) {_why(hit)}"))
    if not answer["edits"] and not answer["not_given"]:
        grid.add_row("answered by", "the base model")
    if nearest := answer.get("nearest"):
        grid.add_row("nearest edit", render.line(f"{nearest['id']} ({nearest['editor']}) {_why(nearest)}"))
    render.out().print(grid)
