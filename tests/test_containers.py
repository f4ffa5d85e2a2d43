"""The container files without a container engine: the Dockerfile's own commands in a fresh venv, the rest read."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from app.config import Settings
from tests.server import PATIENCE_S

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def compose() -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dockerfile_installs_and_starts(tmp_path: Path) -> None:
    build, final = stages()
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ERRATA_", "PYTHON", "VIRTUAL"))}
    environment |= {"PATH": f"{venv}/bin:{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "TORCH_INDEX": ""}
    for name, rest in build:
        if name == "RUN":
            command = rest.replace("/opt/errata", str(venv))
            subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, capture_output=True)
        elif name == "COPY":
            *sources, target = rest.split()
            for each in sources:
                if (ROOT / each).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", ".*")
                    shutil.copytree(ROOT / each, source / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / each, source / target)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    start = json.loads(dict(final)["CMD"])
    start = [{"0.0.0.0": "127.0.0.1", "8000": port}.get(word, word) for word in start]
    data = tmp_path / "data"
    data.mkdir()
    environment["PATH"] = f"{venv}/bin:/usr/bin:/bin"
    with open(tmp_path / "log", "wb") as output:
        server = subprocess.Popen(start, cwd=data, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        check = json.loads(re.sub(r"^.*CMD ", "", dict(final)["HEALTHCHECK"]).replace("8000", port))
        for _ in range(600):
            assert server.poll() is None, (tmp_path / "log").read_text()
            healthy = subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 0
            if healthy:
                break
            time.sleep(0.2)
        assert healthy, (tmp_path / "log").read_text()
        body = {"inputs": "Question: What is the capital of France? Answer:", "parameters": {"max_new_tokens": 8}}
        answer = httpx.post(f"http://127.0.0.1:{port}/generate", json=body, timeout=PATIENCE_S)
        assert answer.json() == {"generated_text": " Paris"}
        assert (data / "errata.db").exists()
    finally:
        server.terminate()
        assert server.wait(timeout=PATIENCE_S) == 0, (tmp_path / "log").read_text()


def test_the_image_runs_as_nobody_special_and_keeps_its_data_on_a_volume() -> None:
    final = stages()[-1]
    assert dict(final)["USER"] == "errata"
    names = [name for name, _ in final]
    assert names.index("USER") < names.index("CMD")
    assert dict(final)["VOLUME"] == "/data"
    assert any(name == "ARG" and rest.startswith("TORCH_INDEX=") for name, rest in stages()[0])


def test_compose_names_settings_that_exist() -> None:
    known = {f"ERRATA_{name.upper()}" for name in Settings.model_fields} | {"HF_HOME", "PYTHONUNBUFFERED", "PATH"}
    for service in ("errata", "errata-gpu"):
        assert set(compose()["services"][service]["environment"]) <= known  # type: ignore[index, call-overload]
    assert set(re.findall(r"(\w+)=", dict(stages()[-1])["ENV"])) <= known


def test_compose_keeps_what_redis_acknowledges_and_publishes_on_loopback_only() -> None:
    services = compose()["services"]
    command = " ".join(services["redis"]["command"])  # type: ignore[index]
    assert "--appendonly yes" in command
    assert "--appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    for name in ("errata", "errata-gpu"):
        ports = services[name]["ports"]  # type: ignore[index]
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert services["errata-gpu"]["profiles"] == ["gpu"]  # type: ignore[index]
    assert "ports" not in services["redis"]
