"""The house keeps its own rules: imports run downhill, types hold, the style is one, files know one thing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml",
    "Dockerfile",
    "docker-compose.yml",
    "app",
    "tests",
    "deploy",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
}


def tracked() -> list[Path]:
    """Files that git knows; in an unpacked copy without git, all."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / name for name in listed.stdout.splitlines()]
    made = {".venv", "errata.egg-info", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.parts)]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow),
        ["lint-imports"],
    ],
    ids=lambda command: command[0] + (" format" if "format" in command else ""),
)
def test_checks(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_is_as_ordered() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_files_are_short_enough_to_know_one_thing() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked()
        if path.suffix == ".py" and path.exists() and (count := len(path.read_text().splitlines())) > 350
    }
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in tracked()
        if path.suffix == ".py" and path.exists() and (text := path.read_text()).strip() and not text.startswith('"""')
    ]
    assert not silent
