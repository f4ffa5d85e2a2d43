"""Settings from files: `.env` and `errata.toml` where a command runs, or the TOML file that ERRATA_CONFIG names.

The top level of the TOML file holds the server's settings, its table `client` what commands need to reach a server.
"""

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

DOTENV = ".env"
CONFIG = "errata.toml"
CLIENT = "client"


class ConfigMissing(ValueError):
    """ERRATA_CONFIG names a file that is not there."""


class ServerTable(TomlConfigSettingsSource):
    """All of the file but the table `client`."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return {name: value for name, value in super()._read_file(file_path).items() if name != CLIENT}


class ClientTable(TomlConfigSettingsSource):
    """The table `client` of the file, where it has one."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        found = super()._read_file(file_path).get(CLIENT, {})
        return found if isinstance(found, dict) else {CLIENT: found}


def with_file(
    source: type[TomlConfigSettingsSource],
    settings: type[BaseSettings],
    first: tuple[PydanticBaseSettingsSource, ...],
) -> tuple[PydanticBaseSettingsSource, ...]:
    """The sources of some settings, the strongest first; the file is the weakest. Raises ConfigMissing."""
    return *first, source(settings, config_file())


def config_file() -> Path:
    """The file that is read, if it is there. Raises ConfigMissing where one is named that is not."""
    named = os.environ.get("ERRATA_CONFIG")
    if named and not Path(named).expanduser().is_file():
        raise ConfigMissing(f"There is no config file {named}: name another with --config or ERRATA_CONFIG.")
    return Path(named or CONFIG).expanduser()


def variables() -> dict[str, str]:
    """The environment, and below it what `.env` sets."""
    return {name: value for name, value in dotenv_values(DOTENV).items() if value is not None} | dict(os.environ)
