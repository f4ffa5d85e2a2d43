"""The front of a vLLM that runs already, with the commands that the documentation gives."""

from pathlib import Path

import httpx
import pytest

from tests.engine.vllm.running import KEY, answers, free_port, until, vllm_serve
from tests.server import Server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PROMPT, TARGET = "The capital of Sweden is", "Uppsala, of all places"


def ready(server: Server) -> bool:
    return server.client.get("/readyz").status_code == 200


def say(server: Server, prompt: str) -> str:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 12}}
    answer = server.client.post("/generate", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated_text"]).strip()


def test_an_edit_answers_through_the_front_alone_and_survives_a_restart_of_vllm(tmp_path: Path) -> None:
    port = free_port()
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
            tried = server.client.post("/edit", json={"prompt": PROMPT, "target": TARGET, "dry_run": True}, timeout=300)
            assert tried.json()["after"].strip() == TARGET, tried.text
            assert say(server, PROMPT) == before
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
