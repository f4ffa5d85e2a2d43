"""`errata keys`: API keys. Works on the log itself, because the first key is made before there is a server."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import render
from app.cli.options import Json, Store
from app.cli.store import opened
from app.cli.tables import Column, print_table
from app.domain.events import Origin
from app.domain.keys import RIGHTS, Key, Right, Role, namespace_names
from app.service.keyring import Keyring
from app.service.records import Records

keys = typer.Typer(help="Keys and roles. Until the first key is made, anyone who reaches the server may use it.")

DOING = {
    Right.GENERATE: "ask the model",
    Right.READ: "look at edits, log and metrics",
    Right.PROPOSE: "propose edits",
    Right.EDIT: "edit or roll back",
    Right.ADMIN: "set the edit switch or probes, force an edit, take snapshots",
}

COLUMNS = (
    Column(name="ID"),
    Column(name="ROLE"),
    Column(name="NAME", least=8),
    Column(name="NAMESPACES", least=8),
    Column(name="CREATED (UTC)", drop=2),
    Column(name="REVOKED (UTC)", drop=1),
)


@keys.command()
def create(
    context: typer.Context,
    role: Annotated[Role, typer.Option(help="generator, reader, proposer, editor or admin.")],
    name: Annotated[str, typer.Option(help="The holder's name, which the audit trail shows.")],
    namespace: Annotated[
        list[str] | None, typer.Option(help="A namespace that it opens; may be repeated. [default: all]")
    ] = None,
    store: Store = None,
    json_: Json = False,
) -> None:
    """Make a key and show it, this once."""
    with _records(store, must_exist=False) as records:
        key, text = asyncio.run(Keyring(records, time.time).create(role, name, _origin(context), namespace or ()))
        url = records.log.url
        locked = _locked(records)
    typer.echo(locked, err=True, nl=bool(locked))
    if json_:
        shown_key = {"id": key.id, "role": key.role, "name": key.name, "namespaces": list(key.namespaces)}
        render.as_json({**shown_key, "store": where_of(url), "key": text})
        return
    who = f"{key.id} ({key.role} of {namespace_names(key.namespaces)}, {key.name})"
    typer.echo(f"{who} in {where_of(url)}. Keep this, it is not shown again:", err=True)
    typer.echo(text)


@keys.command("list")
def list_keys(store: Store = None, json_: Json = False) -> None:
    """List all keys ever made. Their secrets are not stored anywhere."""
    with _records(store) as records:
        listed = list(records.ledger.keys.values())
    if json_:
        render.as_json([_fields(key) for key in listed])
    elif listed:
        rows = [
            (
                key.id,
                key.role,
                render.line(key.name),
                ", ".join(key.namespaces) or "all",
                _moment(key.created_at_s),
                _moment(key.revoked_at_s),
            )
            for key in listed
        ]
        print_table(render.out(), COLUMNS, rows)
    else:
        typer.echo("No keys.")


@keys.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or a beginning of it that no other has.")],
    store: Store = None,
    json_: Json = False,
) -> None:
    """Revoke a key, on every server over this log, within a second."""
    with _records(store) as records:
        key = asyncio.run(
            Keyring(records, time.time).revoke(
                render.only_id(list(records.ledger.keys), key_id, "key"), _origin(context)
            )
        )
        locked = _locked(records)
    typer.echo(locked, err=True, nl=bool(locked))
    render.answer(_fields(key), f"{key.id} ({key.role}, {key.name}) is revoked.", json_=json_)


def _locked(records: Records) -> str:
    """A warning that names the actions for which there is no key left, once keys are required; empty if some key may do
    each."""
    live = [key for key in records.ledger.keys.values() if key.revoked_at_s is None]
    roles = {key.role for key in live if not key.namespaces}
    missing = frozenset(Right).difference(*(RIGHTS[role] for role in roles))
    if not missing:
        return ""
    whole = " for all namespaces" if any(key.namespaces for key in live) else ""
    doings = [DOING[right] for right in Right if right in missing]
    return (
        f"From now on every request needs a key, and no key{whole} may {'; or '.join(doings)}. "
        f"Make one that may: errata keys create --role admin --name NAME"
    )


def where_of(url: str) -> str:
    """The address of a log; for a file its absolute path."""
    return str(Path(url.removeprefix("sqlite:///")).absolute()) if url.startswith("sqlite:///") else url


def _fields(key: Key) -> dict[str, Any]:
    """The fields of a key that may be shown: all but its hash."""
    return {
        "id": key.id,
        "role": key.role,
        "name": key.name,
        "namespaces": list(key.namespaces),
        "created_at": _moment(key.created_at_s),
        "revoked_at": None if key.revoked_at_s is None else _moment(key.revoked_at_s),
    }


@contextmanager
def _records(store: str | None, *, must_exist: bool = True) -> Iterator[Records]:
    with opened(store, must_exist=must_exist) as log:
        if log.url == "memory://":
            render.fail(f"{log.url} keeps nothing beyond its process: name another with --store.")
        records = Records(log)
        records.fold_all()
        yield records


def _origin(context: typer.Context) -> Origin:
    return Origin(actor=context.obj.actor, client="the command line")


def _moment(at_s: float | None) -> str:
    return "" if at_s is None else render.moment(datetime.fromtimestamp(at_s, UTC).isoformat())
