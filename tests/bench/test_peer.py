"""Two servers as processes of their own, measured by turns. Both are stand-ins that answer in OpenAI's form at once."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.bench.budget import TimeBudget
from app.bench.crowded import Crowd
from app.bench.peer_vllm import CLIENTS, VllmBench, beside_vllm, vllm_server
from app.bench.processes import ServerProcess, free_port
from app.bench.report import markdown
from app.bench.workload import PromptSpec, Workload
from app.config import Settings
from app.domain.errors import InvalidRequest
from tests.models import tokenizer
from tests.rig import CORPUS

pytestmark = pytest.mark.slow
STAND_IN = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(sys.argv[2], "a") as log:
            log.write(json.dumps(asked) + "\\n")
        self.send_response(200)
        self.end_headers()
        tokens = int(sys.argv[3]) if len(sys.argv) > 3 else asked["max_tokens"]
        for _ in range(tokens):
            self.wfile.write(b'data: {"choices": [{"text": "x"}]}\\n\\n')
        usage = json.dumps({"choices": [], "usage": {"completion_tokens": tokens}})
        self.wfile.write(f"data: {usage}\\n\\ndata: [DONE]\\n\\n".encode())

    def log_message(self, *_):
        pass

ThreadingHTTPServer.request_queue_size = 64
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def stand_in(name: str, log: Path, *more: str) -> ServerProcess:
    port = free_port()
    return ServerProcess(name, [sys.executable, "-c", STAND_IN, str(port), str(log), *more], port, "/", {})


def measured(
    folder: Path, *more: str, crowd: Crowd | None = None, clients: Sequence[int] = CLIENTS
) -> tuple[Any, list[Any]]:
    kept: list[Any] = []

    async def story() -> Any:
        errata, vllm = stand_in("errata", folder / "errata"), stand_in("vllm", folder / "vllm", *more)
        try:
            await errata.start(lambda _: None)
            await vllm.start(lambda _: None)
            workload = Workload(tokenizer(), CORPUS, 0)
            told: Any = lambda _: None  # noqa: E731
            bench = VllmBench(errata, vllm, workload, 1, told, told, TimeBudget(), kept.append, crowd, clients)
            return await beside_vllm(bench)
        finally:
            await errata.end()
            await vllm.end()

    return asyncio.run(story()), kept


def asked_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_are_asked_the_same_and_no_prompt_twice(tmp_path: Path) -> None:
    found, kept = measured(tmp_path)
    assert list(found) == ["1", "4", "16"]
    for clients, requests in (("1", 2), ("4", 4), ("16", 16)):
        runs = found[clients]["runs"]
        assert [(run["requests"], run["tokens"]) for run in runs.values()] == [(requests, 64 * requests)] * 2
        assert found[clients]["times_as_fast_as"]["vllm"] > 0
    assert len(kept) == 6, "after every run that counts"
    ours, theirs = asked_of(tmp_path / "errata"), asked_of(tmp_path / "vllm")
    assert len(ours) == 2 * (2 + 4 + 16)
    prompts = [each["prompt"] for each in ours]
    assert len(set(prompts)) == len(prompts)
    assert sorted(prompts) == sorted(each["prompt"] for each in theirs)
    assert {each["ignore_eos"] for each in ours + theirs} == {True}
    assert {each.get("model") for each in ours} == {None}
    assert {each["model"] for each in theirs} == {"errata-bench"}
    about = {"machine": {"description": "2 CPUs"}, "model": "x", "command": "errata bench", "date": "2026-11-28"}
    told = markdown({**about, "sections": {"vllm": found}})
    assert "| 16 clients, HTTP |" in told
    assert "times as fast as vllm" in told


def test_with_live_edits_prompts_that_they_answer_are_measured_beside_prompts_that_they_do_not(tmp_path: Path) -> None:
    hits = [PromptSpec(f"What is {at}?", (1, 2), 64) for at in range(16)]
    found, _ = measured(tmp_path, crowd=Crowd({0: "edits-0", 64: "edits-64"}, hits, ()))
    assert list(found["4"]["runs"]) == ["errata", "vllm", "errata, edited"]
    ours, theirs = asked_of(tmp_path / "errata"), asked_of(tmp_path / "vllm")
    edited = [each for each in ours if each["prompt"].startswith("What is")]
    assert len(edited) == len(theirs) == len(ours) / 2
    assert {each["namespace"] for each in ours} == {"edits-64"}
    assert not {each["prompt"] for each in edited} & {each["prompt"] for each in theirs}


def test_the_numbers_of_clients_that_were_asked_for_are_measured(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, clients=(2, 20))
    assert {clients: runs["runs"]["errata"]["requests"] for clients, runs in found.items()} == {"2": 2, "20": 20}


def test_a_server_that_does_not_answer_all_tokens_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="vllm answered 6 tokens, not 128"):
        measured(tmp_path, "3")


def test_a_server_is_held_still_and_ended_with_all_of_its_processes(tmp_path: Path) -> None:
    named = tmp_path / "group"
    program = (
        "import os, pathlib, subprocess, sys; "
        f"pathlib.Path({str(named)!r}).write_text(str(os.getpgrp())); "
        "subprocess.Popen([sys.executable, *sys.argv[1:]]).wait()"
    )

    def states(group: int) -> list[str]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group:
                found.append(fields[0])
        return found

    async def story() -> None:
        port = free_port()
        command = [sys.executable, "-c", program, "-c", STAND_IN, str(port), str(tmp_path / "log")]
        server = ServerProcess("x", command, port, "/", {})
        await server.start(lambda _: None)
        group = int(named.read_text())
        assert len(states(group)) == 2
        with server.suspended():
            while set(states(group)) != {"T"}:
                await asyncio.sleep(0)
        while "T" in states(group):
            await asyncio.sleep(0)
        os.killpg(group, signal.SIGSTOP)
        await server.end()
        assert [state for state in states(group) if state != "Z"] == []

    asyncio.run(story())


def test_a_server_that_ends_before_it_is_ready_says_why() -> None:
    async def story() -> None:
        server = ServerProcess("vllm", [sys.executable, "-c", "raise SystemExit('no such model')"], 1, "/health", {})
        try:
            await server.start(lambda _: None)
        finally:
            await server.end()

    with pytest.raises(InvalidRequest, match="vllm has ended before it was ready:\nno such model"):
        asyncio.run(story())


def test_vllm_gets_the_model_its_precision_and_more_options(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    settings = Settings(_env_file=None, model="/models/x", dtype="bfloat16", device="cpu")  # type: ignore[call-arg]

    async def story() -> None:
        server = vllm_server(settings, str(python), "--enforce-eager --block-size '16'")
        try:
            await server.start(lambda _: None)
        finally:
            await server.end()

    with pytest.raises(InvalidRequest, match="ended before it was ready") as error:
        asyncio.run(story())
    command = error.value.message.splitlines()[-1].split()
    assert command[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert command[command.index("--model") + 1] == "/models/x"
    assert command[command.index("--dtype") + 1] == "bfloat16"
    assert command[-3:] == ["--enforce-eager", "--block-size", "16"]
