"""`errata`: all commands together. Does not import torch; `serve` does, once it runs."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.cli import render
from app.cli.bench import bench
from app.cli.change import disable, enable, rollback, switch
from app.cli.client import DEFAULT_URL, Client
from app.cli.demo import demo
from app.cli.edit import edit
from app.cli.evaluate import evaluate
from app.cli.exam import exam
from app.cli.exits import MEANINGS, Exit
from app.cli.fit import fit, import_, prepare
from app.cli.generate import generate
from app.cli.interruption import on_ctrl_c
from app.cli.job import job
from app.cli.keys import keys
from app.cli.log import log
from app.cli.lora import lora
from app.cli.namespaces import namespaces, promote
from app.cli.proposals import policy, proposals
from app.cli.scope import check, probes, retune, traffic, why
from app.cli.serve import serve
from app.cli.settings import read_client, settings
from app.cli.show import edits, status
from app.cli.snapshot import snapshot
from app.cli.store import store
from app.cli.webhooks import webhooks
from app.version import version


class Commands(TyperGroup):
    """A group of commands, each of which Ctrl-C ends with one line. With `--json`, wrong usage is reported in JSON."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        as_json = "--json" in args  # before anything is parsed, as that may fail before the option is reached
        with _wrong_usage(as_json):
            context = super().make_context(info_name, args, *rest, **more)
        context.meta[AS_JSON] = as_json
        return context

    def invoke(self, ctx: Any) -> Any:
        with on_ctrl_c(str), _wrong_usage(ctx.meta[AS_JSON]):
            return super().invoke(ctx)


AS_JSON = "errata.as_json"
"""The key of a context's `meta` under which it is known whether the command line has `--json`."""


@contextmanager
def _wrong_usage(as_json: bool) -> Iterator[None]:
    """Report a wrong command line in JSON, if that was asked for; otherwise typer prints it in a box."""
    try:
        yield
    except typer.TyperException as error:
        if not as_json:
            raise
        render.AS_JSON.set(True)
        render.fail(error.format_message(), title="Wrong usage", code=Exit.USAGE)


app = typer.Typer(
    name="errata",
    cls=Commands,
    help="A hotfix channel for language models: correct a served answer in seconds, see who did, take it back.",
    epilog=f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show the values of variables, including keys
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",  # in the other mode `[default: 8000]` is a tag and is not shown
)


def os_user() -> str:
    """The system's name of the user; `anonymous` if it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "anonymous"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"errata {version()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="ERRATA_URL", help=f"The server's address. [default: {DEFAULT_URL}]")
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            envvar="ERRATA_ACTOR",
            help="The person who makes changes, for the audit trail; beside a key it is a claim. [default: you]",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="ERRATA_KEY", help="Your key, where the server asks for one.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(envvar="ERRATA_CONFIG", help="A TOML file of settings. [default: errata.toml, if it is there]"),
    ] = None,
    _show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    render.AS_JSON.set(False)
    if config is not None:
        os.environ["ERRATA_CONFIG"] = str(config)  # for every reader of settings, including processes that are started
    client = read_client({"url": url, "actor": actor, "key": key})
    secret = None if client.key is None else client.key.get_secret_value()
    claims = client.actor is not None or secret is None
    context.obj = Client(client.url, client.actor or os_user(), secret, claims=claims)


for command in (
    serve, settings, status, generate, edit, retune, edits, rollback, disable, enable, switch, promote, policy,
    probes, why, traffic, job, demo, fit, prepare,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_)
app.command("eval")(evaluate)
app.command()(bench)
app.add_typer(log, name="log")
app.add_typer(lora, name="lora")
app.add_typer(keys, name="keys")
app.add_typer(proposals, name="proposals")
app.add_typer(namespaces, name="namespaces")
scope = typer.Typer(help="Whom edits reach.", no_args_is_help=True)
scope.command("check")(check)
scope.command("exam")(exam)
app.add_typer(scope, name="scope")
app.add_typer(snapshot, name="snapshot")
app.add_typer(store, name="store")
app.add_typer(webhooks, name="webhooks")
