"""`errata log`: shows every change, follows new ones, exports the log for an audit, or verifies it entry by entry."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.audit import checked_hash, export_log, verify_file
from app.cli.client import Client
from app.cli.edit import duration_s
from app.cli.events import event_line, event_table
from app.cli.options import Json, Reason, Store, Yes
from app.cli.outlook import confirm
from app.cli.store import check

PAGE = 500
"""The most events that the server returns in one answer."""
FOLLOW_S = 1.0

log = typer.Typer(help="Every change, newest first, with who made it and why.", invoke_without_command=True)


def moment(text: str) -> datetime:
    """A time such as 2026-11-29T12:30, in UTC unless it says otherwise, or a time ago such as 30m, 12h or 7d."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - timedelta(seconds=duration_s(text))
        except (typer.BadParameter, OverflowError):
            raise typer.BadParameter(
                f"{text!r} is not a time: use 2026-11-29, 2026-11-29T12:30, or 30m, 12h or 7d ago."
            ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


Actor = Annotated[str | None, typer.Option(help="Only changes of this actor, or of the key with this id.")]
Since = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Only changes since 2026-11-29, or 30m, 12h, 7d.")
]
Edit = Annotated[str | None, typer.Option(metavar="ID", help="Only changes of this edit.")]


@log.callback()
def show(
    context: typer.Context,
    actor: Actor = None,
    since: Since = None,
    edit: Edit = None,
    after: Annotated[int | None, typer.Option(min=0, help="Only events above this revision.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to show.")] = 50,
    export_to: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write the whole log to a self-verifying file.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing changes as they come.")] = False,
    json_: Json = False,
) -> None:
    """Show the log: every change, newest first, with who made it and why."""
    if context.invoked_subcommand is not None:
        return
    client: Client = context.obj
    if export_to is not None:
        if any(each is not None for each in (actor, since, edit, after)) or follow:
            raise typer.BadParameter("--export writes the whole log: leave the filters and --follow out.")
        export_log(client, export_to, json_=json_)
        return
    filters = {
        "actor": actor,
        "since": None if since is None else since.isoformat(),
        "edit": None if edit is None else client.whole_id(edit),
    }
    if follow:
        _follow(client, filters, after, limit, json_=json_)
        return
    listed, more = _last(client, filters, after, limit)
    if json_:
        for event in listed:
            typer.echo(json.dumps(event, ensure_ascii=False))
    elif listed:
        event_table(listed)
    else:
        typer.echo("No events.")
    if more:
        _cut(limit)


@log.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A new file.", dir_okay=False)],
    json_: Json = False,
) -> None:
    """Write the whole log to a file that can be verified on its own: JSON, one event on each line, with all that its
    hash covers."""
    export_log(context.obj, file, json_=json_)


@log.command()
def adopt(
    context: typer.Context,
    revision: Annotated[int, typer.Option(min=0, help="Its last revision, as `errata status` shows it; 0 if empty.")],
    yes: Yes = False,
    reason: Reason = None,
    json_: Json = False,
) -> None:
    """Accept a log that has replaced the one that the server has applied. Asks for confirmation."""
    confirm(f"Adopt the log that ends at revision {revision}? Changes only in the replaced one are lost.", yes=yes)
    done = context.obj.post("/log/adopt", {"revision": revision, "reason": reason})
    render.answer(done, f"The log is adopted, at revision {done['revision']}.", json_=json_)


@log.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="A file of `errata log export`; if left out, the store.", dir_okay=False)
    ] = None,
    hash_: Annotated[
        str | None,
        typer.Option(
            "--hash",
            metavar="HASH",
            help="The hash that FILE must end with, known from elsewhere.",
            callback=checked_hash,
        ),
    ] = None,
    url: Store = None,
    json_: Json = False,
) -> None:
    """Verify an exported log, or the stored one, without a server: every hash, every link, and that it folds."""
    if file is None:
        check(url, json_)
        return
    if url is not None:
        raise typer.BadParameter("Give either FILE or --store.")
    verify_file(file, hash_, json_=json_)


def _cut(limit: int) -> None:
    typer.echo(f"There are more than {limit}: raise --limit, or narrow with --actor, --since, --edit.", err=True)


def _follow(client: Client, filters: dict[str, Any], after: int | None, limit: int, *, json_: bool) -> None:
    """Show the last changes, oldest first, and then each new one, until Ctrl-C."""
    head = client.get("/log", order="newest", limit=1)["events"]
    read_to = head[0]["revision"] if head else 0
    listed, more = _last(client, filters, after, limit, before=read_to + 1)
    if more:
        _cut(limit)
    shown = list(reversed(listed))
    while True:
        for event in shown:
            if json_:
                typer.echo(json.dumps(event, ensure_ascii=False))
            else:
                event_line(event)
        page = client.get("/log", after=read_to, limit=PAGE, **filters)
        shown, read_to = page["events"], page["read_to"]
        if not shown:
            time.sleep(FOLLOW_S)


def _last(
    client: Client, filters: dict[str, Any], after: int | None, limit: int, before: int | None = None
) -> tuple[list[Any], bool]:
    """The newest events, newest first, and whether there are more of them."""
    listed: list[Any] = []
    for event in _newest(client, filters, before):
        if after is not None and event["revision"] <= after:
            break
        if len(listed) == limit:
            return listed, True
        listed.append(event)
    return listed, False


def _newest(client: Client, filters: dict[str, Any], before: int | None) -> Iterator[Any]:
    while True:
        page = client.get("/log", order="newest", before=before, limit=PAGE, **filters)
        yield from page["events"]
        before = page["next_before"]
        if before is None:
            return
