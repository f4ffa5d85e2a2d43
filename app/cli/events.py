"""The presentation of events in a terminal: the log's, and those of an edit's history."""

import json
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from app.cli import render
from app.cli.tables import Column, print_table

EVENT_COLUMNS = (
    Column(name="REVISION", right=True),
    Column(name="WHEN (UTC)", drop=2),
    Column(name="EVENT", drop=1),
    Column(name="BY", least=8, drop=3),
    Column(name="WHAT", least=24, fold=True),
)


def event_table(events: Iterable[dict[str, Any]]) -> None:
    print_table(render.out(), EVENT_COLUMNS, [event_cells(event) for event in events])


def event_line(event: dict[str, Any]) -> None:
    """Print one event on one line."""
    revision, at, kind, actor, what = event_cells(event)
    render.say(Text.assemble(revision, "  ", at, "  ", kind, "  ", actor, "  ", what))


def event_cells(event: dict[str, Any]) -> tuple[str | Text, ...]:
    what = _what(event)
    if event["reason"]:
        what = Text("; " if what.plain else "").join([what, render.line(event["reason"])])
    kind = event["kind"].replace("_", " ")
    return str(event["revision"]), render.moment(event["at"]), kind, render.line(event["actor"]), what


def _what(event: dict[str, Any]) -> Text:
    parts = [_subject(event)]
    if event.get("proposed_by"):
        parts.append(render.line(f"proposed by {event['proposed_by']}"))
    if event.get("changed"):
        parts.append(render.line(json.dumps(event["changed"], ensure_ascii=False)))
    if event.get("by"):
        parts.append(Text(f"by {event['by']}"))
    for name, said in (("superseded", "in place of"), ("revived", "answering again:")):
        if event.get(name):
            parts.append(Text(f"{said} {', '.join(event[name])}"))
    return Text("; ").join([part for part in parts if part.plain])


def _subject(event: dict[str, Any]) -> Text:
    if "edit" in event:
        edit = event["edit"]
        forced = " (forced)" if edit["forced"] else ""
        return Text.assemble(edit["id"], ": ", render.line(edit["prompt"]), " -> ", render.line(edit["target"]), forced)
    if "on" in event:
        where = event["namespace"] or "all namespaces"
        return render.line(f"{where} {'on' if event['on'] else 'off'}")
    if "proposed" in event:
        proposed = [
            Text.assemble(render.line(each["prompt"]), " -> ", render.line(each["target"]))
            for each in event["proposed"]
        ]
        return Text.assemble(event["proposal"], ": ", Text("; ").join(proposed))
    if "second_person" in event:
        return render.line(f"{event['namespace']} needs {'a' if event['second_person'] else 'no'} second person")
    if "key" in event:
        return render.line(f"{event['key_name'] or event['key']} ({event['key_role'] or 'key'})")
    if event.get("proposal") and "edit_ids" not in event:
        return Text(event["proposal"])
    return Text(", ".join(event.get("edit_ids", ())) + (" (forced)" if event.get("forced") else ""))


def edit_detail(edit: dict[str, Any]) -> None:
    """Print one edit in full, with its history."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    history = edit["history"]
    for name, value in edit.items():
        if name == "history" or value in (None, [], {}, ""):
            continue
        if name == "state":
            shown = render.state(value)
        elif name.endswith("_at"):
            shown = Text(f"{render.moment(value)} UTC")
        elif name == "live":
            spans = [f"{start} to {'now' if end is None else end - 1}" for start, end in value]
            shown = Text(f"at revisions {', '.join(spans)}")
        elif isinstance(value, list):
            shown = Text("\n").join([Text(render.plain(str(item))) for item in value])
        else:
            shown = Text(render.plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        grid.add_row(name, shown)
    render.out().print(grid)
    render.out().print(Text("\nhistory", style="bold"))
    event_table(history)
