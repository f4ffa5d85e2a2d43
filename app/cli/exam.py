"""`errata scope exam`: the result of the exam of the judge of uncertain questions."""

import time
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.client import Client
from app.cli.exits import Exit
from app.cli.options import Json

PERIOD_S = 1.0
MESSAGES = {
    "off": "There is no judge: ERRATA_JUDGE is off, and scope is decided by the index alone.",
    "sitting": "The judge {judge} sits its exam: {pairs} pairs so far. --wait waits for its end.",
    "serving": "The judge {judge} passed its exam and serves.",
    "failed": "The judge {judge} failed its exam and is not asked.",
    "broken": "The judge {judge} is not asked: {why_not}.",
}


def exam(
    context: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the exam is over.")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="List the pairs that it got wrong.")] = False,
    json_: Json = False,
) -> None:
    """Show the result of the judge's exam (ERRATA_JUDGE). Exits with 1 if it failed, with 7 while the exam runs."""
    client: Client = context.obj
    result: dict[str, Any] = client.get("/scope/exam")
    while wait and result["state"] == "sitting":
        time.sleep(PERIOD_S)
        result = client.get("/scope/exam")
    if json_:
        render.as_json(result)
    else:
        _print(result, wrong)
    if result["state"] == "sitting":
        raise typer.Exit(Exit.BUSY)
    if result["state"] in ("failed", "broken"):
        raise typer.Exit(Exit.FAILED)


def _print(result: dict[str, Any], wrong: bool) -> None:
    out = render.out()
    out.print(render.line(MESSAGES[result["state"]].format(**result)))
    if result["same"] is not None:
        reached = f"{result['same']:.3f} of the pairs that ask the same, {result['other']:.3f} of the others"
        out.print(render.line(f"Right: {reached}; {result['pass_mark']:.2f} of both is required."))
        out.print(render.line(f"It answered {result['pairs']} pairs in {result['seconds']:.1f} s."))
    if result["asked"]:
        done = (
            f"asked {result['asked']} times, {result['changed']} decisions changed, {result['failed']} times no answer"
        )
        out.print(render.line(f"Since the start: {done}."))
    for each in result["wrong"] if wrong else ():
        which = "the same as" if each["same"] else "something else than"
        out.print(render.line(f"  {each['question']!r} asks {which} {each['known']!r}"))
