"""Settings and the log, for commands that work on this machine without a server. Does not import torch."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from app.cli import render
from app.cli.exits import Exit
from app.cli.options import Json
from app.cli.tables import Column, print_table
from app.config import ClientSettings, Settings, unknown_variables
from app.config_files import ConfigMissing, config_file, variables
from app.store.base import Log
from app.store.open import open_log

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


COLUMNS = (
    Column(name="SETTING"),
    Column(name="VALUE", least=12),
    Column(name="FROM", drop=1),
    Column(name="WHAT IT IS", least=24, fold=True),
)
S = TypeVar("S", bound=BaseSettings)
WHERE = "`errata settings` lists all of them, and where each comes from."


def read_settings(given: Mapping[str, Any]) -> Settings:
    """The settings from options, the environment, `.env`, the config file and defaults, in this order. An error ends
    the command and names the setting."""
    if unknown := unknown_variables(variables()):
        _wrong(*unknown)
    return _read(Settings, given)


def read_client(given: Mapping[str, Any]) -> ClientSettings:
    """The server's address and the actor, from the same sources."""
    return _read(ClientSettings, given)


def _read(kind: type[S], given: Mapping[str, Any]) -> S:
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        _wrong(*(_explained(kind, each) for each in error.errors()))
    except SettingsError as error:
        _wrong(_not_json(error))
    except ConfigMissing as error:
        render.fail(str(error), code=Exit.USAGE, title="Wrong settings")
    except tomllib.TOMLDecodeError as error:
        _wrong(f"{config_file()} is not TOML: {error}.")
    except (OSError, UnicodeDecodeError) as error:
        _wrong(f"A file of settings cannot be read: {error}.")


def _wrong(*what: str) -> NoReturn:
    render.fail(*what, WHERE, code=Exit.USAGE, title="Wrong settings")


def _explained(kind: type[BaseSettings], error: "ErrorDetails") -> str:
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        if kind is Settings and name in ClientSettings.model_fields:
            return f"{name} is a setting of commands: move it into the table [client]."
        close = difflib.get_close_matches(name.casefold(), kind.model_fields, n=1)
        return f"{name} is not a setting: {f'did you mean {close[0]}?' if close else 'leave it out.'}"
    message = error["msg"].removeprefix("Value error, ")
    given = f" (given: {error['input']!r})" if error["loc"] and not isinstance(error["input"], dict) else ""
    return f"{name}: {message}{given}."


def _not_json(error: SettingsError) -> str:
    """The message for a value that is not JSON: the library's names the field and its source, its cause the parser's
    error."""
    match = re.search(r'field "(\w+)"', str(error))
    name = f"ERRATA_{match[1].upper()}" if match else str(error)
    return f"{name} is not JSON: {error.__cause__}. Quote it as a whole in a shell: {name}='{{...}}'."


def open_store(url: str | None, *, must_exist: bool = False, secret: str | None = None) -> Log:
    """The log that `errata serve` would use, or that of a URL. Raises the store's errors.

    `secret` opens a log that is sealed with another secret than that of the settings (empty: with none). If
    `must_exist`, a mistyped name ends the command, instead of creating an empty log.
    """
    settings = read_settings({} if url is None else {"store": url})
    file = settings.store.removeprefix("sqlite:///")
    if must_exist and file != settings.store and not Path(file).is_file():
        render.fail(f"There is no log {Path(file).absolute()}: name it with --store.")
    options = settings.log_options() | ({} if secret is None else {"secret": secret or None})
    return open_log(settings.store, **options)


def settings(json_: Json = False) -> None:
    """List every setting: its value here, its source, and its meaning."""
    read = read_settings({})
    rows = [
        {
            "name": name,
            "value": shown(getattr(read, name)),
            "from": "default" if name not in read.model_fields_set else source_of(name),
            "default": shown(field.get_default(call_default_factory=True)),
            "about": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if json_:
        render.as_json(rows)
    else:
        print_table(render.out(), COLUMNS, [[row["name"], row["value"], row["from"], row["about"]] for row in rows])


def setting(name: str, about: str, default: str | None = None) -> Any:
    """An option for a setting, with the setting's default in its help. The option itself has no default, which would
    override the environment and files."""
    value = shown(Settings.model_fields[name].get_default()) if default is None else default
    return typer.Option(help=f"{about} [default: {value}]")


def shown(value: object) -> str:
    """A value as it is written in a variable; a secret is hidden."""
    if value is None or isinstance(value, str):
        return re.sub(r"//[^@/]*@", "//***@", value or "")
    return json.dumps(value) if isinstance(value, bool | int | float | dict) else str(value)


def source_of(name: str) -> str:
    """The source that sets the setting, the strongest if there are several."""
    names = {f"ERRATA_{name.upper()}"} | ({"REDIS_URL"} if name == "store" else set())
    if given := names & set(os.environ):
        return min(given)
    return ".env" if names & set(variables()) else str(config_file())
