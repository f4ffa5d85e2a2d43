"""Ctrl-C and SIGTERM, sent to real processes: a server that serves or loads, and commands that wait for one."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.signals import TWICE_S
from tests.api.fake_service import FakeService
from tests.api.serving import live_server
from tests.api.test_stream import events
from tests.server import PATIENCE_S, ROOT, Server

LONG = {"inputs": "long", "parameters": {"max_new_tokens": 4000}}


def until(condition: Callable[[], bool], what: str, output: Callable[[], str] = str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"not within {PATIENCE_S:g} s: {what}: {output()}"
        time.sleep(0.02)


class Process:
    """A process whose output, standard error included, is read while it runs."""

    def __init__(self, *command: str, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ERRATA_")}
        kept |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", **environment}
        self._process = subprocess.Popen(
            [sys.executable, *command], env=kept, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def until_said(self, text: str) -> None:
        until(lambda: text in self.output or not self.runs, f"{text!r} is said", lambda: self.output)
        assert text in self.output, self.output

    def ended(self) -> int:
        """The exit code, once all was read."""
        code = self._process.wait(timeout=PATIENCE_S)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def kill(self) -> None:
        if self.runs:
            self._process.kill()
        self.ended()


@contextmanager
def process(*command: str, **environment: str) -> Iterator[Process]:
    started = Process(*command, **environment)
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Process, httpx.Client]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        process("-m", "tests.cli.fake_server", "--port", str(port), *arguments) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client,
    ):
        until(lambda: answers(client) or not server.runs, "it serves", lambda: server.output)
        yield server, client


def answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/healthz").is_success
    return False


def busy(client: httpx.Client) -> list[str]:
    """Has one stream and one edit under way; what the stream says, as it comes."""
    said: list[str] = []

    def listen() -> None:
        with suppress(httpx.TransportError), client.stream("POST", "/generate_stream", json=LONG) as answer:
            said.extend(answer.iter_lines())

    threading.Thread(target=listen, daemon=True).start()
    until(lambda: bool(said), "the stream has begun")
    job = client.post("/edit", json={"prompt": "p", "target": "slowly"}, headers={"Prefer": "respond-async"}).json()
    assert client.get(f"/jobs/{job['id']}").json()["outcome"] == "running"
    return said


@pytest.mark.slow
def test_ctrl_c_says_what_it_waits_for_and_ends_what_takes_longer() -> None:
    with serving("--stop-grace-s", "1", "--log-format", "console") as (server, client):
        said = busy(client)
        server.send_signal(signal.SIGINT)
        assert server.ended() == 0
        told = [line for line in server.output.splitlines() if "Finishing" in line]
        assert told == ["Finishing 1 answer and 1 edit, at most 1 s; press Ctrl-C again to stop at once."]
        assert "Traceback" not in server.output
        until(lambda: "503" in "".join(said[-3:]), "the stream ends with an error that says so")
        assert "stopping" in events("\n".join(said))[-1]["detail"]


@pytest.mark.slow
def test_programs_are_told_in_json() -> None:
    with serving("--stop-grace-s", "0") as (server, client):
        busy(client)
        server.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
        (told,) = [line for line in lines if line.get("kind") == "stop"]
        assert (told["answers"], told["edits"], told["seconds"]) == (1, 1, 0)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once() -> None:
    with serving("--stop-grace-s", "600") as (server, client):
        busy(client)
        server.send_signal(signal.SIGINT)
        server.until_said("at most 600 s")
        time.sleep(TWICE_S)  # sooner it would be the same one
        server.send_signal(signal.SIGINT)
        assert server.ended() == 130
        assert "Traceback" not in server.output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize(("loads", "doing"), [("model", "reading the weights"), ("log", "reading the log")])
def test_while_it_loads_it_ends_with_one_line(number: signal.Signals, name: str, loads: str, doing: str) -> None:
    with process("-m", "tests.cli.fake_server", "--port", "0", FAKE_LOADS=loads) as server:
        server.until_said(doing)
        server.send_signal(number)
        assert server.ended() == 128 + number
        _, last = server.output.splitlines()
        assert last == f"Stopped by {name}: while {doing}"


@pytest.mark.slow
def test_ctrl_c_while_torch_is_imported() -> None:
    with process("-m", "app", "serve", "--port", "0", "--store", "memory://") as server:
        server.until_said("importing libraries")
        server.send_signal(signal.SIGINT)
        assert server.ended() == 130
        assert "Traceback" not in server.output
        assert server.output.splitlines()[-1].startswith("Stopped by Ctrl-C: while ")


@pytest.mark.slow
def test_what_was_acknowledged_outlives_a_second_ctrl_c(tmp_path: Path) -> None:
    server = Server(tmp_path, "--stop-grace-s", "600")
    server.start()
    try:
        assert server.client.post("/switch", json={"on": False}).is_success
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /edit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            # connections are accepted in turn: once a newer one is answered, the one above has been read
            assert httpx.get(f"http://{server.address}/healthz", trust_env=False).is_success
            server.send_signal(signal.SIGINT)
            until(lambda: "at most 600 s" in server.output, "it waits", lambda: server.output)
            time.sleep(TWICE_S)
            server.send_signal(signal.SIGINT)
            assert server.wait() == 130
        server.start()
        assert server.client.get("/readyz").json()["switched_on"] is False
    finally:
        server.stop()
        server.client.close()


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_edit_goes_on_without_who_asked_for_it(as_json: bool) -> None:
    service, begun, go_on = FakeService(), threading.Event(), threading.Event()
    edit = service.edit

    async def slow(*asked: Any, **how: Any) -> Any:
        begun.set()
        await asyncio.to_thread(go_on.wait, 60)
        return await edit(*asked, **how)

    service.edit = slow  # type: ignore[method-assign]
    with live_server(service) as url:
        more = ["--json"] if as_json else []
        with process("-m", "app", "edit", "a question", "an answer", *more, ERRATA_URL=url) as command:
            assert begun.wait(60)
            command.send_signal(signal.SIGINT)
            assert command.ended() == 130
            (line,) = command.output.splitlines()
            detail = json.loads(line)["detail"] if as_json else line
            assert re.search("the server (goes on with|may have) the edit", detail), (
                "the job may not have been told yet"
            )
            assert "errata log" in detail
        go_on.set()
        until(lambda: service.revision == 1, "it is live all the same")


def test_a_command_that_crashes_does_not_tell_its_key() -> None:
    """The key is a local variable in a frame of the trace."""
    program = """
import app.cli.main as main

def crash(url, actor, key, *, claims):
    raise RuntimeError("a fault of the command's")

main.Client = crash
main.app()
"""
    environment = os.environ | {"ERRATA_KEY": "errata_s3cret", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-c", program, "edits"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "a fault of the command's" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
