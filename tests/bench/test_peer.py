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
from app.bench.contestants import OverHttp
from app.bench.crowded import Crowd
from app.bench.peer_vllm import (
    CHECKED,
    CLIENTS,
    VllmBench,
    beside_vllm,
    check_room,
    edits_asked,
    running_servers,
    vllm_server,
)
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
        self.wfile.write(b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\\n\\n')
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
    for clients, requests in (("1", 4), ("4", 4), ("16", 16)):
        runs = found[clients]["runs"]
        assert [(run["requests"], run["tokens"]) for run in runs.values()] == [(requests, 64 * requests)] * 2
        (compared,) = found[clients]["times_as_good_as_vllm"].values()
        # the stand-ins' tokens may all come at once, and then there is no time between them
        assert {"tokens_per_s", "first_token_p99", "whole_p99"} <= compared.keys()
        assert min(compared.values()) > 0
    assert len(kept) == 6, "after every run that counts"
    ours, theirs = asked_of(tmp_path / "errata"), asked_of(tmp_path / "vllm")
    assert len(ours) == 2 * (4 + 4 + 16)
    prompts = [each["prompt"] for each in ours]
    assert len(set(prompts)) == len(prompts)
    assert sorted(prompts) == sorted(each["prompt"] for each in theirs)
    assert {each["ignore_eos"] for each in ours + theirs} == {True}
    assert {each.get("model") for each in ours} == {None}
    assert {each["model"] for each in theirs} == {"errata-bench"}
    about = {"machine": {"description": "2 CPUs"}, "model": "x", "command": "errata bench", "date": "2026-11-28"}
    told = markdown({**about, "sections": {"vllm": found}})
    assert "| 16 clients, HTTP |" in told
    assert "| errata: times as good as vllm |" in told
    assert "of the p99" in told


def edited(count: int, answer: str) -> Crowd:
    """Edits of so many prompts, which all give this answer."""
    prompts = [f"What is {at}?" for at in range(count)]
    hits = [PromptSpec(prompt, tuple(tokenizer()(prompt).input_ids), 64) for prompt in prompts]
    return Crowd({0: "edits-0", 64: "edits-64"}, hits, tuple(tokenizer()(answer).input_ids))


def test_prompts_that_edits_answer_are_asked_of_both_and_none_twice(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, crowd=edited(edits_asked(CLIENTS, 1), 64 * "x"))
    four = found["4"]
    assert list(four["runs"]) == ["errata", "vllm", "errata, edited", "vllm, the same prompts"]
    assert list(four["times_as_good_as_vllm"]) == ["errata", "errata, edited"]
    assert four["given_by_edits"] == [4, 4]
    ours, theirs = asked_of(tmp_path / "errata"), asked_of(tmp_path / "vllm")
    assert {each["namespace"] for each in ours} == {"edits-64"}
    prompts = [each["prompt"] for each in ours]
    assert len(set(prompts)) == len(prompts)
    # those that are checked before are asked of nobody again
    assert sorted(each["prompt"] for each in theirs) == sorted(prompts[CHECKED:])
    assert sum(prompt.startswith("What is") for prompt in prompts) == CHECKED + len(theirs) / 2


def test_where_edits_do_not_answer_nothing_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"No edit answered any of 8 prompts to the end.*'What is 0\?'.*'xxx"):
        measured(tmp_path, crowd=edited(edits_asked(CLIENTS, 1), 63 * "x" + "y"))
    assert len(asked_of(tmp_path / "errata")) == CHECKED
    assert not (tmp_path / "vllm").exists()


def test_a_token_is_timed_once_and_the_answer_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    """The last event has the marker of a token and is none."""

    async def story() -> None:
        server = stand_in("errata", tmp_path / "log")
        try:
            await server.start(lambda _: None)
            specs = [PromptSpec("Who?", (1,), 3)]
            for texts, text in ((True, "xxx"), (False, "")):
                body: Any = lambda spec: {"max_tokens": spec.tokens}  # noqa: E731
                run = await OverHttp(server.url, "errata", "/v1/completions", '"text":', body, texts).run(specs)
                assert [(len(each.tokens), each.text) for each in run.requests] == [(3, text)]
        finally:
            await server.end()

    asyncio.run(story())


def test_the_numbers_of_clients_that_were_asked_for_are_measured(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, clients=(2, 20))
    assert {clients: runs["runs"]["errata"]["requests"] for clients, runs in found.items()} == {"2": 4, "20": 20}


def test_a_server_that_cannot_hold_all_clients_is_not_measured() -> None:
    check_room({"slots": 64, "room_tokens": 64 * 128}, 64)
    with pytest.raises(InvalidRequest, match="room for 63 requests and 99,999 tokens"):
        check_room({"slots": 63, "room_tokens": 99_999}, 64)
    with pytest.raises(InvalidRequest, match="64 clients need 8,192"):
        check_room({"slots": 64, "room_tokens": 8_191}, 64)
    settings = Settings(_env_file=None, model="demo", slots=4)  # type: ignore[call-arg]
    told: Any = lambda _: None  # noqa: E731

    async def story() -> None:
        async with running_servers(settings, sys.executable, "", 1, 0, told, told, TimeBudget(), clients=(1, 5)):
            raise AssertionError("no server was to start")

    with pytest.raises(InvalidRequest, match="ERRATA_SLOTS=5"):
        asyncio.run(story())


def test_a_server_that_does_not_answer_all_tokens_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="vllm answered 12 tokens, not 256"):
        measured(tmp_path, "3")


def test_a_server_is_held_still_and_ended_with_all_of_its_processes(tmp_path: Path) -> None:
    named = tmp_path / "group"
    program = (
        "import os, pathlib, subprocess, sys; "
        "elsewhere = subprocess.Popen(['sleep', '600'], start_new_session=True).pid; "
        f"pathlib.Path({str(named)!r}).write_text(f'{{os.getpgrp()}} {{elsewhere}}'); "
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
        group, elsewhere = map(int, named.read_text().split())
        assert (len(states(group)), len(states(elsewhere))) == (2, 1)
        with server.suspended():
            while set(states(group) + states(elsewhere)) != {"T"}:
                await asyncio.sleep(0)
        while "T" in states(group) + states(elsewhere):
            await asyncio.sleep(0)
        os.killpg(elsewhere, signal.SIGKILL)
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
