"""The presentation in a terminal. Depends on the API's bodies, not on commands or connections."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.exits import Exit, exit_of_error, exit_of_problem
from app.cli.tables import Column, print_table
from app.domain.errors import ErrataError

STATES = {
    "live": "green",
    "preview": "cyan",
    "disabled": "yellow",
    "superseded": "bright_black",
    "expired": "bright_black",
    "rolled_back": "red",
}


AS_JSON: ContextVar[bool] = ContextVar("as_json", default=False)
"""True if the command was given `--json`, which reserves standard output for programs."""
MOST_IDS = 5
"""The most ids that a message lists."""
UNBOUNDED = 10_000
"""The width of a pipe or a file in columns: nothing that a program reads is cut to the width of a terminal."""


def out() -> Console:
    """Standard output, for people; standard error if the command answers in JSON.

    Created for each use: the streams may have been replaced since, as tests do.
    """
    stream = sys.stderr if AS_JSON.get() else sys.stdout
    bounded = stream.isatty() or "COLUMNS" in os.environ
    return Console(file=stream, highlight=False, soft_wrap=False, width=None if bounded else UNBOUNDED)


def numbered(count: int, what: str) -> str:
    """A count with its noun: "1 edit", "2 edits"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def say(text: str | Text) -> None:
    """Print one whole line for people, which the terminal wraps."""
    out().print(Text(plain(text)) if isinstance(text, str) else text, soft_wrap=True)


def fail(message: str, *hints: str, title: str = "Error", code: int = Exit.FAILED) -> NoReturn:
    """Say on stderr, in one line, what is wrong and what to do, and end with an exit code."""
    if AS_JSON.get():
        _fail_as_json({"title": title, "detail": " ".join((message, *hints))}, code)
    said = Text.assemble((f"{plain(title)}: ", "bold red"), plain(" ".join((message, *hints))))
    Console(stderr=True, highlight=False).print(said, soft_wrap=True)
    raise typer.Exit(int(code))


def only_id(ids: Sequence[str], beginning: str, what: str) -> str:
    """The only one of these ids that begins so; a beginning of none is returned, to be refused under its own name."""
    ids = [each for each in ids if each.startswith(beginning)]
    if len(ids) > 1 and beginning not in ids:
        listed = ", ".join([*ids[:MOST_IDS], *(["..."] if len(ids) > MOST_IDS else [])])
        fail(f"More than one {what}'s id begins with {beginning!r}: {listed}.", code=Exit.UNKNOWN)
    return ids[0] if len(ids) == 1 else beginning


def fail_with_problem(problem: Mapping[str, Any], request_id: str | None = None) -> NoReturn:
    """End the command with the message of a problem from the server, followed by its other fields."""
    code = exit_of_problem(problem)
    if AS_JSON.get():
        _fail_as_json(problem, code)
    console = Console(stderr=True, highlight=False)
    said = Text.assemble((f"{plain(problem['title'])}: ", "bold red"), plain(problem["detail"]))
    console.print(said, soft_wrap=True)
    for name, value in problem.items():
        if name == "report":
            _report(console, value)
        elif name == "conflicts":
            console.print(Text(f"  conflicts: {', '.join(map(plain, value))}"), soft_wrap=True)
        elif name not in {"type", "title", "status", "detail", "errors"}:
            console.print(Text(f"  {name}: {plain(json.dumps(value, ensure_ascii=False))}"), soft_wrap=True)
    if problem["status"] >= 500 and request_id:
        console.print(Text(f"  request: {plain(request_id)}"), soft_wrap=True)
    raise typer.Exit(int(code))


def fail_with_error(error: ErrataError) -> NoReturn:
    """End the command with an error that occurred on this machine."""
    fail(error.message, code=exit_of_error(error))


def _fail_as_json(problem: Mapping[str, Any], code: int) -> NoReturn:
    typer.echo(json.dumps({**problem, "exit_code": int(code)}, ensure_ascii=False), err=True)
    raise typer.Exit(int(code))


def _report(console: Console, report: Mapping[str, Any]) -> None:
    """Print the measurements of edits that failed their verification, by prompt; any other report is printed as it
    is."""
    by_prompt = {prompt: figures for prompt, figures in report.items() if isinstance(figures, Mapping)}
    if not by_prompt:
        console.print(Text(f"  report: {plain(json.dumps(report, ensure_ascii=False))}"), soft_wrap=True)
    for prompt, figures in by_prompt.items():
        console.print(Text("  report: ") + line(prompt), soft_wrap=True)
        for each in report_lines(figures):
            console.print(Text("  ") + each, soft_wrap=True)


def plain(text: str) -> str:
    """The text without characters that could control the terminal: prompts and answers come from other people."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)


def line(text: str) -> Text:
    """The text on one line."""
    return Text(plain(" ".join(text.split())))


def indented(text: str) -> Text:
    """The text on one line, below what it belongs to."""
    return Text("  ") + line(text)


def moment(at: str | None) -> str:
    """An ISO time, to the second, in UTC."""
    return "" if at is None else at[:19].replace("T", " ")


def state(name: str) -> Text:
    return Text(name, style=STATES.get(name, ""))


def answer(value: Any, text: str, *, json_: bool) -> None:
    """Print a command's result: a value for programs, or a line for people."""
    as_json(value) if json_ else say(text)


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_edit(edit: dict[str, Any]) -> None:
    """Print an edit as it was made: its answers before and after, its time in seconds, its state."""
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
        outcome = f"  {edit['id']} is {edit['state']}, revision {edit['revision']}; {seconds:.2f} s ({phases})"
        console.print(Text(outcome))


def preview(report: dict[str, Any]) -> None:
    """Print the objections to an edit that is only tried, and the questions that it would reach."""
    verdict = "would be committed" if report.get("would_commit") else "would be refused"
    say(Text(f"  {verdict}", style="green" if report.get("would_commit") else "red"))
    for each in report_lines(report):
        say(each)


def report_lines(report: Mapping[str, Any]) -> Iterator[Text]:
    """The measurements of an edit, one on each line."""
    for problem in report.get("problems", ()):
        yield Text("  problem: ") + line(problem)
    for edit_id in report.get("conflicts", ()):
        yield Text("  in the way: ") + line(edit_id)
    for name in ("paraphrases", "made", "unchanged", "live_edits"):
        if (counted := report.get(name)) and counted["asked"]:
            yield Text(f"  {name.replace('_', ' ')}: {counted['right']} of {counted['asked']}")
    if misses := report.get("near_misses"):
        yield Text(f"  near misses that it would answer: {len(misses['answered'])} of {misses['asked']}")
        for each in misses["answered"]:
            yield Text("    ") + line(each) + Text(" (add it to the counter-examples if that is wrong)")
    if scope := report.get("scope"):
        rate = f"  expected to answer {scope['rate']:.4f} of other questions, which rests on {scope['rests_on']:,}"
        yield Text(rate)
    if recent := report.get("recent"):
        yield Text(f"  recent prompts that change: {recent['changed']} of {recent['asked']}")
        for each in recent["shown"]:
            yield Text.assemble("    ", line(each["prompt"]), ": ", line(each["before"]), " -> ", line(each["now"]))


def changed(edits: Iterable[dict[str, Any]], revision: int) -> None:
    """Print edits after a change of their state."""
    console = out()
    count = 0
    for edit in edits:
        count += 1
        target = line(edit["target"])
        console.print(
            Text.assemble(edit["id"], " is ", state(edit["state"]), ": ", line(edit["prompt"]), " -> ", target)
        )
    console.print(f"revision {revision}" if count else f"Nothing to take back; revision {revision}")


EDIT_COLUMNS = (
    Column(name="ID"),
    Column(name="STATE", drop=1),
    Column(name="PROMPT", least=14),
    Column(name="TARGET", least=8),
    Column(name="HITS", drop=2, right=True),
    Column(name="BY", least=6, drop=3),
    Column(name="CREATED (UTC)", drop=4),
)


def edit_table(edits: Iterable[dict[str, Any]]) -> None:
    rows = [
        (
            edit["id"],
            state(edit["state"]),
            line(edit["prompt"]),
            line(edit["target"]),
            str(edit["hits"]),
            line(edit["actor"]),
            moment(edit["created_at"]),
        )
        for edit in edits
    ]
    print_table(out(), EDIT_COLUMNS, rows)


def switched_off(switched_on: bool, namespaces: Iterable[str]) -> str:
    """The state of the edit switches, shown beside a count of edits; empty if none is off."""
    off = ", ".join(namespaces) if switched_on else "all namespaces"
    return f"; SWITCHED OFF in {off}" if off else ""


def server_state(url: str, status: dict[str, Any]) -> None:
    """Print the state of a server, as GET /readyz returns it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    readiness = (
        Text("ready", style="green") if status["ready"] else Text(f"not ready: {plain(status['why_not'])}", style="red")
    )
    switched = switched_off(status["switched_on"], status["switched_off"])
    durable = "durable" if status["durable"] else "NOT durable: edits are lost at the end"
    lag = f", {status['log_lag']} events behind" if status["log_lag"] else ""
    rows: list[tuple[str, str | Text]] = [
        ("server", Text.assemble(plain(url), ", ", readiness)),
        ("model", f"{status['model']} on {status['device']}, {status['dtype']}"),
        ("edits", f"{status['live_edits']} live, revision {status['revision']}{switched}"),
        ("log", status["hash"]),
        ("store", f"{status['store']} ({durable}{lag})"),
        ("requests", f"{status['running']} running, {status['waiting']} waiting"),
    ]
    if version := status.get("version"):
        rows.insert(1, ("version", version))
    for name, value in rows:
        grid.add_row(name, plain(value) if isinstance(value, str) else value)
    out().print(grid)
