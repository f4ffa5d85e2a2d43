"""The process beside the server: its end, and what it tells of a request's. A stand-in takes vLLM's place."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.engine.vllm.inside.errata_vllm.host import Host
from app.engine.vllm.process import INSIDE, VllmProcess
from tests.engine.vllm.stand_ins import over_stand_ins

SERVES = """
from multiprocessing.connection import Connection
import sys
connection = Connection(int(sys.argv[-1]))
connection.recv_bytes()
connection.send_bytes(b'{"ready": []}')
try:
    connection.recv_bytes()
except EOFError:
    open(__file__ + ".ended", "w").close()
"""
FORKS = """
import os, signal, sys
from errata_vllm import host

async def serve(connection, arguments):
    child = os.fork()
    if child == 0:
        signal.pause()
    connection.send_bytes(str(child).encode())

host.serve = serve
host.main()
"""


def test_a_stop_lets_the_process_end_by_itself(tmp_path: Path) -> None:
    """vLLM frees its devices in order then, unless the thread that reads its messages keeps the socket open."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}{SERVES}")
    script.chmod(0o755)
    process = VllmProcess(str(script), {})
    process.begin()
    heard = threading.Thread(target=process.listen, args=(lambda _: None,))
    heard.start()
    process.end(60)
    heard.join(60)
    assert (tmp_path / "python.ended").exists()


def test_this_process_leaves_the_cores_to_which_workers_are_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = []
    monkeypatch.setattr("app.engine.vllm.process.leave", left.append)
    script = tmp_path / "python"
    told = SERVES.replace('"ready": []', '"ready": [{"cores": [0]}, {"cores": [2, 3]}]')
    script.write_text(f"#!{sys.executable}{told}")
    script.chmod(0o755)
    for keeps_off in (False, True):
        process = VllmProcess(str(script), {}, keeps_off=keeps_off)
        process.begin()
        process.end(60)
    assert left == [{0, 2, 3}, ()], "with the end of vLLM it may use all of them again"


def test_the_end_of_the_process_is_seen_although_one_that_it_forked_lives_on() -> None:
    mine, theirs = socket.socketpair()
    with theirs:
        host = subprocess.Popen(
            [sys.executable, "-c", FORKS, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(INSIDE)},
        )
    mine.settimeout(60)  # where it is not seen, this would wait for ever
    with mine:
        Connection(os.dup(mine.fileno())).send_bytes(b"{}")
        size = int.from_bytes(mine.recv(4))
        child = int(mine.recv(size))
        try:
            assert host.wait() == 0
            assert mine.recv(1) == b""
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.fixture
def _stand_ins() -> Iterator[None]:
    """Modules in the place of those of vLLM that a request takes classes from."""
    with over_stand_ins("front"):
        yield


RANKED = {7: SimpleNamespace(logprob=-0.5, rank=1)}
ASKED = {"do": "add", "request": 1, "prompt": [1], "parameters": {}, "salt": None, "timeout_s": None}


@pytest.mark.usefixtures("_stand_ins")
@pytest.mark.parametrize(("logprobs", "token"), [([RANKED], [7, -0.5, 1, [[7, -0.5]]]), (None, [7, None, 0, []])])
def test_the_server_is_told_the_tokens_of_a_request_and_how_it_ended(logprobs: Any, token: list[Any]) -> None:
    class Llm:
        async def generate(self, *_: object, **__: object) -> AsyncIterator[Any]:
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7], logprobs=logprobs, finish_reason="stop")])

    mine, theirs = Pipe()
    told: list[bytes] = []

    async def story() -> None:
        runs = asyncio.create_task(Host(theirs, Llm()).run())
        mine.send_bytes(json.dumps(ASKED).encode())
        told.append(await asyncio.to_thread(mine.recv_bytes))
        mine.close()
        await runs

    asyncio.run(story())
    assert [json.loads(each) for each in told] == [{"items": [[1, "tokens", [token]], [1, "ended", "stop"]]}]


def test_the_process_ends_with_its_server_although_its_workers_hang() -> None:
    mine, theirs = Pipe()
    mine.send_bytes(b'{"do": "pulse"}')

    class Llm:
        async def collective_rpc(self, *_: object, **__: object) -> None:
            mine.close()  # the server ends while its question is under way
            await asyncio.Event().wait()

    async def story() -> None:
        async with asyncio.timeout(60):  # it would wait for ever
            await Host(theirs, Llm()).run()

    asyncio.run(story())


@pytest.mark.usefixtures("_stand_ins")
def test_changes_that_come_together_are_few_calls_and_a_later_request_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.engine.vllm.inside.errata_vllm.host.CHANGES_AT_ONCE", 3)
    happened: list[Any] = []

    class Llm:
        async def collective_rpc(self, method: str, args: tuple[Any, ...]) -> None:
            assert method == "errata_change"
            await asyncio.sleep(0.2)  # the others come meanwhile
            happened.append(args[0])

        async def generate(self, *_: object, **__: object) -> AsyncIterator[Any]:
            happened.append("request")
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7], logprobs=None, finish_reason="stop")])

    mine, theirs = Pipe()

    async def story() -> None:
        runs = asyncio.create_task(Host(theirs, Llm()).run())
        for number in range(6):
            mine.send_bytes(json.dumps({"do": "load", "arguments": [f"e{number}", [7]], "value": True}).encode())
            mine.send_bytes(b"1234")
        mine.send_bytes(json.dumps({"do": "drop", "arguments": ["e1"], "value": False}).encode())
        mine.send_bytes(json.dumps(ASKED).encode())
        while "request" not in happened:
            await asyncio.sleep(0.01)
        mine.close()
        await runs

    asyncio.run(story())
    *calls, last = happened
    assert last == "request"
    assert [change for some in calls for change in some] == [
        *(("load", [f"e{number}", [7], b"1234"]) for number in range(6)), ("drop", ["e1"]),
    ]  # fmt: skip
    assert max(map(len, calls)) == 3
    assert len(calls) <= 4
