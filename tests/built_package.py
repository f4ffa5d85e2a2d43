"""The package as setuptools would build it, without building it."""

from pathlib import Path
from typing import Any

import pytest
from setuptools import Distribution

ROOT = Path(__file__).parents[1]


def build_py(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the command that collects what a wheel contains, set up from pyproject.toml. The working directory becomes
    the root of the project, to which its paths are relative."""
    monkeypatch.chdir(ROOT)
    built = Distribution()
    built.parse_config_files()
    command: Any = built.get_command_obj("build_py")
    command.ensure_finalized()
    return command
