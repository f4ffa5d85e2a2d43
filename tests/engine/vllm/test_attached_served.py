"""The front of a vLLM that runs already, with the commands that the documentation gives."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from app.ui.help import FOLDER
from tests.server import ROOT, Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"
KEY = "a key of sixteen or more"


def documented_command(port: int) -> tuple[list[str], dict[str, str]]:
    """The arguments and the variables of the documented command."""
    page = (FOLDER / "operation.md").read_text()
    (found,) = re.findall(r"^\$ (PYTHONPATH=(?:.*\\\n)*.*)", page, re.M)
    words = shlex.split(found.replace("\\\n", " ").replace("8001", str(port)))
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_0-9]+=", word))
    arguments = words[len(variables) :]
    arguments[0] = os.environ["ERRATA_VLLM_PYTHON"]
    return [*arguments, "--enforce-eager", "--max-num-seqs", "8"], variables


@contextmanager
def vllm_serve(port: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments, variables = documented_command(port)
    own = {"ERRATA_VLLM_KEY": KEY, "VLLM_NO_USAGE_STATS": "1"}
    with output.open("ab") as log:
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **variables, **own},
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(holds: Callable[[], bool], vllm: subprocess.Popen[bytes], said: Callable[[], str]) -> None:
    """Wait for it, as long as vLLM lives if it has not been ended on purpose."""
    ended, ends = vllm.poll(), time.monotonic() + 300
    while not holds():
        assert time.monotonic() < ends, said()
        assert vllm.poll() == ended, said()
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def ready(server: Server) -> bool:
    return server.client.get("/readyz").status_code == 200


def say(server: Server, prompt: str) -> str:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 12}}
    answer = server.client.post("/generate", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated_text"]).strip()


def test_an_edit_answers_through_the_front_alone_and_survives_a_restart_of_vllm(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, output = f"http://127.0.0.1:{port}", tmp_path / "vllm.log"
    server = Server(
        tmp_path, "--engine", "vllm", "--vllm-url", url, ERRATA_VLLM_KEY=KEY, ERRATA_KV_MEMORY_FRACTION="0.02",
    )  # fmt: skip

    def bare() -> str:
        body = {"model": "app/demo/model", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"]).strip()

    try:
        with vllm_serve(port, output) as vllm:
            until(lambda: answers(url), vllm, output.read_text)
            assert httpx.post(f"{url}/errata/changes", json={}, trust_env=False).status_code == 401
            assert httpx.post(f"{url}/collective_rpc", json={}, trust_env=False).status_code == 404
            server.start()
            before = say(server, PROMPT)
            edit = server.client.post("/edit", json={"prompt": PROMPT, "target": TARGET}, timeout=300)
            assert edit.status_code == 201, edit.text
            assert edit.json()["report"]["exact"]
            assert say(server, PROMPT) == TARGET
            assert bare() == before, "other clients of vLLM see no edit"
        until(lambda: not ready(server), vllm, lambda: server.output)
        with vllm_serve(port, output) as vllm:
            until(lambda: ready(server), vllm, lambda: server.output + output.read_text())
            assert say(server, PROMPT) == TARGET, "the rows were loaded anew"
            assert bare() == before
            server.client.post(f"/edits/{edit.json()['id']}/rollback", json={})
            assert say(server, PROMPT) == before
            assert server.stop() == 0
    finally:
        server.stop()
        server.client.close()
