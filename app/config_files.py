"""Settings from files: `.env` and `errata.toml` in the working directory, or the TOML file that ERRATA_CONFIG names.

The top level of the TOML file holds the server's settings, its table `client` those of the client commands.
"""

import os
from pathlib import Path
from typing import Any, ClassVar

from dotenv import dotenv_values
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

DOTENV = ".env"
CONFIG = "errata.toml"
CLIENT = "client"


class ConfigMissing(ValueError):
    """ERRATA_CONFIG names a file that is not there."""


class ServerTable(TomlConfigSettingsSource):
    """The file without the table `client`."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return {name: value for name, value in super()._read_file(file_path).items() if name != CLIENT}


class ClientTable(TomlConfigSettingsSource):
    """The table `client` of the file, if it has one."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        client_settings = super()._read_file(file_path).get(CLIENT, {})
        return client_settings if isinstance(client_settings, dict) else {CLIENT: client_settings}


class FileSettings(BaseSettings):
    """Settings from arguments, then ERRATA_* environment variables, `.env`, and a table of the config file."""

    model_config = SettingsConfigDict(
        env_prefix="ERRATA_",
        env_file=DOTENV,
        env_file_encoding="utf-8",
        dotenv_filtering="only_existing",  # `.env` may hold other programs' variables; ours are checked by name
        frozen=True,
        extra="forbid",
        populate_by_name=True,
    )
    table: ClassVar[type[TomlConfigSettingsSource]]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources, strongest first. Raises ConfigMissing."""
        return init_settings, env_settings, dotenv_settings, cls.table(settings_cls, config_file())


def config_file() -> Path:
    """Path of the config file, which may not exist. Raises ConfigMissing if one is named that does not."""
    named = os.environ.get("ERRATA_CONFIG")
    if named and not Path(named).expanduser().is_file():
        raise ConfigMissing(f"There is no config file {named}: name another with --config or ERRATA_CONFIG.")
    return Path(named or CONFIG).expanduser()


def variables() -> dict[str, str]:
    """The environment, and where it is silent the variables of `.env`."""
    return {name: value for name, value in dotenv_values(DOTENV).items() if value is not None} | dict(os.environ)
