"""The README is true: its recipes happen as they are written, and everything that it names exists."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from app.cli.main import app
from app.config import NOT_SETTINGS, Settings
from app.domain.keys import Role
from tests.server import Server, running

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "app/docs").glob("*.md"))
DOCUMENTS = ["README.md", "app/README.md", "app/bench/RESULTS.md", "app/evaluation/RESULTS.md"]
MARK = "~~~ done ~~~"
WORDS = 1200


def readme() -> str:
    return (ROOT / "README.md").read_text()


def recipes() -> list[tuple[str, str]]:
    """(command, what it shows) of each step, in their order."""
    (section,) = re.findall(r"^## Five recipes\n(.*?)^## ", readme(), re.S | re.M)
    blocks = re.findall(r"```console\n(.*?)```", section, re.S)
    steps = [step.partition("\n") for block in blocks for step in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return [(command, shown.strip()) for command, _, shown in steps]


def server_settings() -> dict[str, str]:
    """The variables of the recipe that starts a server."""
    (command,) = re.findall(r"```sh\n(.*) errata serve\n```", readme())
    return dict(word.split("=", 1) for word in shlex.split(command))


PROGRESS = re.compile(r"^\[ *\d+\.\d s\] .*\n", re.M)
"""Lines of progress, which come on slow machines alone."""


def as_shown(found: str, shown: str) -> bool:
    """True if an output is the one that is shown; `...` matches anything, and amounts of space do not count."""
    pattern = re.escape(" ".join(shown.split())).replace(r"\.\.\.", ".+")
    return re.fullmatch(pattern, " ".join(found.split())) is not None


class Shell:
    """One bash that all commands share, as a reader's does."""

    def __init__(self, folder: Path, server: Server) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ERRATA_") and k != "REDIS_URL"}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "NO_PROXY": "127.0.0.1",
            "ERRATA_URL": f"http://{server.address}",
            "ERRATA_STORE": f"sqlite:///{folder / 'errata.db'}",
        }
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho\necho '{MARK}'\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == MARK:
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended at {command}: {''.join(lines)}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[Shell, Server]]:
    with running(tmp_path, **server_settings()) as server:
        shell = Shell(tmp_path, server)
        yield shell, server
        shell.close()


@pytest.mark.slow
def test_the_recipes_are_true(shell: tuple[Shell, Server]) -> None:
    bash, server = shell
    known = ""
    steps = recipes()
    assert len(steps) > 20
    for command, shown in steps:
        found = bash.run(command.replace("localhost:8000", server.address).replace("ed_...", known))
        found = PROGRESS.sub("", found)
        known = (re.findall(r"\bed_\w+", found) or [known])[-1]
        assert as_shown(found, shown), f"$ {command}\n{found}"
    assert closed(server), "the last recipe asks for keys"


def closed(server: Server) -> bool:
    """True if requests without a key are refused, once the server has read of the first key."""
    end = time.monotonic() + 60
    while server.client.get("/edits").status_code != 401:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_an_output_is_compared_as_a_whole() -> None:
    assert as_shown("ed_1 is live,\n  revision 2; 0.3 s", "ed_... is live, revision 2; ...")
    assert as_shown("euro\n", "euro")
    assert not as_shown("euros", "euro")
    assert not as_shown("Error: kuna\neuro", "euro")
    assert not as_shown("", "...")


def test_the_readme_names_every_role() -> None:
    (told,) = re.findall(r"^Roles are (.*?)\.", readme(), flags=re.M)
    assert re.findall(r"`(\w+)`", told) == [role.value for role in Role]


def test_the_readme_is_short() -> None:
    prose = re.sub(r"^```.*?^```$", "", readme(), flags=re.S | re.M)
    assert len(prose.split()) <= WORDS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    here = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", here.read_text())
    assert links
    assert [link for link in links if not (here.parent / link).exists()] == []


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_settings_that_are_named_exist(document: str) -> None:
    known = {f"ERRATA_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    named = set(re.findall(r"\bERRATA_[A-Z_]*[A-Z]\b", (ROOT / document).read_text()))
    assert named <= known
    assert named or document != "README.md"


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_commands_that_are_named_exist(document: str) -> None:
    root = typer.main.get_command(app)
    named = commands(document)
    assert len(named) > 5 or document in PAGES
    for words in named:
        command: Any = root
        while words and not words[0].startswith("-") and hasattr(command, "commands"):
            assert words[0] in command.commands, f"errata {words[0]}"
            command = command.commands[words.pop(0)]
        known = {option for each in command.params for option in each.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, command.name


def commands(document: str) -> list[list[str]]:
    """The words of each `errata ...` in inline code and in blocks, behind `errata`."""
    text = (ROOT / document).read_text()
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M))
    inline = re.findall(r"`(errata\s[^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M))
    lines = re.findall(r"(?:^\$ |&& |^[A-Z_]+=.* )(?:\.venv/bin/)?(errata [^&\n]+)", blocks, re.M)
    return [shlex.split(each)[1:] for each in inline + lines if each != "errata COMMAND --help"]


def test_the_test_command_is_the_one_that_ci_calls() -> None:
    ci = (ROOT / ".ci/run").read_text()
    (pattern,) = re.findall(r"command=\$\(sed -n '(.*?)' README.md", ci)
    found = subprocess.run(["sed", "-n", pattern, ROOT / "README.md"], capture_output=True, text=True, check=True)
    (command,) = found.stdout.splitlines()
    assert "pip install -q -c deploy/constraints.txt " in command
    options = command.partition("python -m pytest")[2].split()
    assert options in ([], ["-n", "2", "--dist", "loadfile"]), "the whole suite is run"
    assert f"$ {command}" in readme()
    assert 'bash -c "$command"' in ci
