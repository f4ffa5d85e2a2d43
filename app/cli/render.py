"""How things look in a terminal. Knows the wire's shapes, no command and no connection."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

STATES = {
    "live": "green",
    "preview": "cyan",
    "disabled": "yellow",
    "superseded": "bright_black",
    "expired": "bright_black",
    "rolled_back": "red",
}


def out() -> Console:
    """Made anew each time: the streams may have been swapped since, as tests do."""
    return Console(highlight=False, soft_wrap=False)


def fail(message: str, *hints: str, title: str = "Error") -> NoReturn:
    """Says on stderr what is wrong and what to do, and ends with exit code 1."""
    body = Text("\n").join([Text(plain(line)) for line in (message, *hints)])
    Console(stderr=True, highlight=False).print(Panel(body, title=Text(plain(title)), border_style="red"))
    raise typer.Exit(1)


def plain(text: str) -> str:
    """Text that cannot steer the terminal: prompts and answers are other people's words."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)


def line(text: str) -> Text:
    """Text on one line."""
    return Text(plain(" ".join(text.split())))


def moment(at: str | None) -> str:
    """An ISO time, to the second, in UTC."""
    return "" if at is None else at[:19].replace("T", " ")


def state(name: str) -> Text:
    return Text(name, style=STATES.get(name, ""))


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def made(edit: dict[str, Any]) -> None:
    """An edit as it was made: before -> after, how long it took, where it stands."""
    console = out()
    change = Text.assemble(
        line(edit["before"]) or Text("(nothing)"), (" -> ", "bold"), (line(edit["after"]).plain, "green")
    )
    console.print(line(edit["prompt"]), style="bold")
    console.print(Text("  ") + change)
    seconds = sum(edit["seconds"].values())
    phases = ", ".join(f"{name} {value:.2f}" for name, value in edit["seconds"].items())
    if edit["state"] == "preview":
        console.print(Text(f"  preview only, nothing was committed; {seconds:.2f} s ({phases})"))
        preview(edit["report"])
    else:
        standing = f"  {edit['id']} is {edit['state']}, revision {edit['revision']}; {seconds:.2f} s ({phases})"
        console.print(Text(standing))


def preview(report: dict[str, Any]) -> None:
    """What stands against an edit that is only tried, and whom it would reach."""
    console = out()
    verdict = "would be committed" if report.get("would_commit") else "would be refused"
    console.print(Text(f"  {verdict}", style="green" if report.get("would_commit") else "red"))
    for problem in report.get("problems", ()):
        console.print(Text("  problem: ") + line(problem))
    for edit_id in report.get("conflicts", ()):
        console.print(Text("  in the way: ") + line(edit_id))
    for name in ("paraphrases", "made", "unchanged", "live_edits"):
        if (counted := report.get(name)) and counted["asked"]:
            console.print(Text(f"  {name.replace('_', ' ')}: {counted['right']} of {counted['asked']}"))
    if misses := report.get("near_misses"):
        console.print(Text(f"  near misses that it would answer: {len(misses['answered'])} of {misses['asked']}"))
        for each in misses["answered"]:
            console.print(Text("    ") + line(each) + Text(" (add it to the counter-examples if that is wrong)"))
    if scope := report.get("scope"):
        rate = f"  expected to answer {scope['rate']:.4f} of other questions, which rests on {scope['rests_on']:,}"
        console.print(Text(rate))
    if recent := report.get("recent"):
        console.print(Text(f"  recent prompts that change: {recent['changed']} of {recent['asked']}"))
        for each in recent["shown"]:
            console.print(
                Text.assemble("    ", line(each["prompt"]), ": ", line(each["before"]), " -> ", line(each["now"]))
            )


def changed(edits: Iterable[dict[str, Any]], revision: int) -> None:
    """Edits after a change of their state."""
    console = out()
    count = 0
    for edit in edits:
        count += 1
        target = line(edit["target"])
        console.print(
            Text.assemble(edit["id"], " is ", state(edit["state"]), ": ", line(edit["prompt"]), " -> ", target)
        )
    console.print(f"revision {revision}" if count else f"Nothing to take back; revision {revision}")


def edit_table(edits: Iterable[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for name in ("PROMPT", "TARGET"):
        table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("BY", "CREATED (UTC)", "HITS"):
        table.add_column(name, no_wrap=True, justify="right" if name == "HITS" else "left")
    for edit in edits:
        table.add_row(
            edit["id"],
            state(edit["state"]),
            line(edit["prompt"]),
            line(edit["target"]),
            line(edit["actor"]),
            moment(edit["created_at"]),
            str(edit["hits"]),
        )
    out().print(table)


def edit_detail(edit: dict[str, Any]) -> None:
    """One edit in full, with its history."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    history = edit["history"]
    for name, value in edit.items():
        if name == "history" or value in (None, [], {}, ""):
            continue
        if name == "state":
            shown = state(value)
        elif name.endswith("_at"):
            shown = Text(f"{moment(value)} UTC")
        elif name == "live":
            spans = [f"{start} to {'now' if end is None else end - 1}" for start, end in value]
            shown = Text(f"at revisions {', '.join(spans)}")
        elif isinstance(value, list):
            shown = Text("\n").join([Text(plain(str(item))) for item in value])
        else:
            shown = Text(plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        grid.add_row(name, shown)
    out().print(grid)
    out().print(Text("\nhistory", style="bold"))
    event_table(history)


def event_table(events: Iterable[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("REVISION", "WHEN (UTC)", "EVENT", "BY"):
        table.add_column(name, no_wrap=True, justify="right" if name == "REVISION" else "left")
    table.add_column("WHAT", overflow="fold")
    for event in events:
        what = _what(event)
        if event["reason"]:
            what = Text("; " if what.plain else "").join([what, line(event["reason"])])
        table.add_row(
            str(event["revision"]), moment(event["at"]), event["kind"].replace("_", " "), line(event["actor"]), what
        )
    out().print(table)


def _what(event: dict[str, Any]) -> Text:
    if "edit" in event:
        edit = event["edit"]
        return Text.assemble(edit["id"], ": ", line(edit["prompt"]), " -> ", line(edit["target"]))
    if "on" in event:
        where = event["namespace"] or "all namespaces"
        return line(f"{where} {'on' if event['on'] else 'off'}")
    return Text(", ".join(event.get("edit_ids", ())))


def _why(hit: dict[str, Any]) -> str:
    """In words; of editors as published, which have none, the signals."""
    if hit.get("why"):
        return str(hit["why"])
    return ", ".join(f"{name} {s['value']:.4g} (bound {s['bound']:.4g})" for name, s in hit["signals"].items())


def details(found: dict[str, Any]) -> None:
    """How an answer came about."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in ("finish_reason", "prompt_tokens", "generated_tokens", "seed", "revision"):
        if found[name] is not None:
            grid.add_row(name, str(found[name]))
    for hit in found["edits"]:
        grid.add_row("answered by", line(f"{hit['id']} ({hit['editor']}) {_why(hit)}"))
    if not found["edits"]:
        grid.add_row("answered by", "the base model")
    if near := found.get("nearest"):
        grid.add_row("nearest edit", line(f"{near['id']} ({near['editor']}) {_why(near)}"))
    out().print(grid)
