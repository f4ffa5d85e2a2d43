"""The effects of a change, the switches and the namespaces in a terminal, and the confirmation of a change."""

import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.text import Text

from app.cli import render
from app.cli.exits import Exit
from app.cli.tables import Column, print_table

SWITCHES = (
    Column(name="NAMESPACE"),
    Column(name="SWITCH"),
    Column(name="REVISION", drop=3, right=True),
    Column(name="WHEN (UTC)", drop=2),
    Column(name="BY", least=6, drop=1),
    Column(name="WHY", least=12, drop=4),
)
NAMESPACES = (
    Column(name="NAMESPACE"),
    Column(name="LIVE", right=True),
    Column(name="EDITS", drop=2, right=True),
    Column(name="PROBES", drop=1, right=True),
    Column(name="ANSWERING"),
    Column(name="EDITS NEED", drop=3),
    Column(name="WHAT FOR", least=8, drop=3),
)


def confirm(question: str, *, yes: bool) -> None:
    """End the program unless the user at the terminal agrees. Without a terminal, --yes has to confirm."""
    if yes:
        return
    if not sys.stdin.isatty():
        render.fail(f"{question} Nobody is there to be asked: say --yes.", code=Exit.USAGE)
    typer.confirm(question, abort=True, err=True)


def rollback_outlook(outlook: dict[str, Any]) -> None:
    """Show the edits that would be rolled back, and those that would answer again."""
    console = render.out()
    for edit in outlook["edits"]:
        console.print(Text.assemble(edit["id"], " would be taken back: ", _change(edit)))
    revived(outlook["revived"], "would answer again")
    count = len(outlook["edits"])
    console.print(
        f"{render.numbered(count, 'edit')}, as of revision {outlook['revision']}" if count else "Nothing to take back"
    )


def revived(edits: Iterable[dict[str, Any]], how: str = "answers again") -> None:
    for edit in edits:
        render.out().print(Text.assemble(edit["id"], f" {how}: ", _change(edit)))


def switch_table(switches: dict[str, Any]) -> None:
    rows = [
        (
            each["namespace"] or "(all)",
            Text("on") if each["on"] else Text("OFF", style="red"),
            str(each["since"] or ""),
            render.moment(each["at"]),
            render.line(each["actor"] or ""),
            render.line(each["reason"] or ""),
        )
        for each in switches["switches"]
    ]
    print_table(render.out(), SWITCHES, rows)


def namespace_table(namespaces: Iterable[dict[str, Any]]) -> None:
    rows = [
        (
            each["name"],
            str(each["live_edits"]),
            str(each["edits"]),
            str(each["probes"]),
            _answering(each),
            "two persons" if each["second_person"] else "one person",
            render.line(each["description"]),
        )
        for each in namespaces
    ]
    print_table(render.out(), NAMESPACES, rows)


def _answering(namespace: dict[str, Any]) -> Text:
    return Text("yes") if namespace["answering"] else Text("SWITCHED OFF", style="red")


def _change(edit: dict[str, Any]) -> Text:
    return Text.assemble(render.line(edit["prompt"]), " -> ", render.line(edit["target"]))
