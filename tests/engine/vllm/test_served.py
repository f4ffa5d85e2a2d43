"""`errata serve --engine vllm`, from the command to an edited answer, and to the end of vLLM's processes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"


def say(server: Server, prompt: str) -> str:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 12}}
    answer = server.client.post("/generate", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated_text"]).strip()


def processes_of_vllm(mark: Path) -> list[int]:
    """The processes that the server whose environment has the mark has started vLLM in."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:  # it has ended, or is somebody else's
            continue
        if b"/engine/vllm/inside" in environment and str(mark).encode() in environment:
            found.append(int(path.parent.name))
    return found


def test_an_edit_survives_a_dead_and_a_hung_vllm_is_taken_back_and_nothing_is_left_running(tmp_path: Path) -> None:
    python = os.environ["ERRATA_VLLM_PYTHON"]
    server = Server(
        tmp_path, "--engine", "vllm", ERRATA_VLLM_PYTHON=python, ERRATA_KV_MEMORY_FRACTION="0.02",
        ERRATA_VLLM_ARGUMENTS='{"enforce_eager": true}', ERRATA_SLOTS="8", ERRATA_VLLM_DEADLINE_S="15",
        MARK=str(tmp_path),
    )  # fmt: skip
    server.start(within_s=600)
    try:
        before = say(server, PROMPT)
        tried = server.client.post("/edit", json={"prompt": PROMPT, "target": TARGET, "dry_run": True}, timeout=300)
        assert tried.json()["after"].strip() == TARGET, tried.text
        assert say(server, PROMPT) == before
        edit = server.client.post("/edit", json={"prompt": PROMPT, "target": TARGET})
        assert edit.status_code == 201, edit.text
        assert edit.json()["report"]["exact"]
        assert say(server, PROMPT) == TARGET
        worker = max(processes_of_vllm(tmp_path))
        cores = bound_apart(server, worker)
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.client.get("/readyz").status_code == 503, server)
        assert say(server, PROMPT) == TARGET, "it waited until vLLM was back and had the edit's rows"
        assert server.client.get("/readyz").status_code == 200
        assert "errata_engine_restarts_total 1.0" in server.client.get("/metrics").text
        assert worker not in processes_of_vllm(tmp_path)
        assert bound_apart(server, max(processes_of_vllm(tmp_path))) == cores, "it has the same as before"
        os.kill(worker := max(processes_of_vllm(tmp_path)), signal.SIGSTOP)
        assert say(server, PROMPT) == TARGET, "it was sent to the vLLM that hangs, and then again"
        assert "errata_engine_restarts_total 2.0" in server.client.get("/metrics").text
        assert worker not in processes_of_vllm(tmp_path)

        refused = server.client.post("/edit", json={"prompt": PROMPT, "target": TARGET, "editor": "patcher"})
        assert refused.status_code == 422
        assert "patcher is not served by this server's engine; grace is. It acts" in refused.json()["detail"]
        server.client.post(f"/edits/{edit.json()['id']}/rollback", json={})
        assert say(server, PROMPT) == before
    finally:
        server.stop()
        server.client.close()
    assert not processes_of_vllm(tmp_path)


def bound_apart(server: Server, worker: int) -> set[int]:
    """The cores to which a worker is bound, none of which the server uses if it has others."""
    cores, ours = os.sched_getaffinity(worker), os.sched_getaffinity(server.pid)
    assert cores.isdisjoint(ours) or cores == os.sched_getaffinity(0)
    return cores


def until(holds: Callable[[], bool], server: Server, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, server.output
        time.sleep(0.2)
