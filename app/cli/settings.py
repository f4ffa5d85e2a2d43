"""Settings and the log for commands that work on this machine, not through a server. Imports no torch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from app.cli import render
from app.store.base import Log
from app.store.open import open_log

if TYPE_CHECKING:
    from app.config import Settings


def read_settings(given: dict[str, Any]) -> "Settings":
    """Options first, then the environment, then defaults; what is wrong is said by name."""
    from app.config import Settings, unknown_variables

    if unknown := unknown_variables(os.environ):
        render.fail(*unknown, "ERRATA_* variables are settings: app/config.py lists them.", title="Wrong settings")
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg'].removeprefix('Value error, ')}"
            + (f" (given: {each['input']!r})" if each["loc"] and not isinstance(each["input"], dict) else "")
            for each in error.errors()
        ]
        render.fail(*wrong, "Options and ERRATA_* environment variables are read.", title="Wrong settings")


def open_store(url: str | None, *, must_exist: bool = False, secret: str | None = None) -> Log:
    """The log that `errata serve` would use, or that of a URL. Raises what the store raises.

    `secret` in place of the settings' (empty: none) opens one that was closed in another way.

    Where a log is only looked at, one of a mistyped name must not come into being, empty and whole.
    """
    settings = read_settings({} if url is None else {"store": url})
    file = settings.store.removeprefix("sqlite:///")
    if must_exist and file != settings.store and not Path(file).is_file():
        render.fail(f"There is no log {Path(file).absolute()}: name it with --store.")
    options = settings.log_options() | ({} if secret is None else {"secret": secret or None})
    return open_log(settings.store, **options)
