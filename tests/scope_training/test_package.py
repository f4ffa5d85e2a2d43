"""The pairs are for training alone: what is installed is without them."""

from pathlib import Path
from typing import Any

import pytest
from setuptools import Distribution

ROOT = Path(__file__).parents[2]


def test_the_pairs_are_in_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    built = Distribution()
    built.parse_config_files()
    command: Any = built.get_command_obj("build_py")
    command.ensure_finalized()
    pairs = [str(path.relative_to(ROOT)) for path in (ROOT / "app/scope_training/pairs").iterdir()]
    assert len(pairs) > 20
    command.manifest_files = {"app.scope_training": pairs}  # as if a list of the sources named them
    packages = ("app", "app.scope", "app.scope_training")
    packed = {path for name in packages for path in command.find_data_files(name, name.replace(".", "/"))}
    assert "app/scope/scorer_v1.safetensors" in packed
    assert packed.isdisjoint(pairs)
