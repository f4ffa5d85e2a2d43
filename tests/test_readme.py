"""The README's transcript happens as it is written, on a real server."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server import running

LOCAL = {**os.environ, "NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}
ROOT = Path(__file__).parents[1]


def transcript() -> list[tuple[str, Any]]:
    """(command, expected JSON) of each step."""
    block = re.search(r"```transcript\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    steps = [step.split("\n", 1) for step in block[1].strip().split("\n\n")]
    return [(command.removeprefix("$ "), json.loads(expected)) for command, expected in steps]


def check(found: Any, expected: Any, where: str) -> None:
    """`"..."` stands for anything; what the README leaves out of an object is not looked at."""
    if expected == "...":
        assert found is not None, where
    elif isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where}: no {key} in {found}"
            check(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            check(one, other, f"{where}[{i}]")
    else:
        assert found == expected, where


@pytest.mark.slow
def test_the_transcript_is_true(tmp_path: Path) -> None:
    known = ""
    with running(tmp_path) as server:
        for command, expected in transcript():
            command = command.replace("localhost:8000", server.address).replace("ed_...", known)
            done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60, env=LOCAL)
            found = json.loads(done.stdout)
            known = found.get("id", known)
            check(found, expected, command)


def test_the_test_command_is_the_one_that_ci_calls() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    (pattern,) = re.findall(r"command=\$\(sed -n '(.*?)' README.md", ci)
    found = subprocess.run(["sed", "-n", pattern, ROOT / "README.md"], capture_output=True, text=True, check=True)
    (command,) = found.stdout.splitlines()
    assert "pip install -q -c deploy/constraints.txt " in command
    options = command.partition("python -m pytest")[2].split()
    assert options in ([], ["-n", "2", "--dist", "loadfile"]), "the whole suite is run"
    assert f"$ {command}" in readme
    assert 'bash -c "$command"' in ci
