"""A vLLM that runs already, started with the command that the documentation gives, and an engine in front of it."""

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
from typing import Any

import httpx

from app.engine.vllm.attached import AttachedVllm
from app.engine.vllm.engine import ADAPTERS, VllmEngine
from app.engine.vllm.engine_arguments import vllm_arguments
from app.engine.vllm.served_model import ServedModel
from app.engine.vllm.supervisor import VllmSupervisor
from app.ui.help import FOLDER
from tests.rig import Rig
from tests.server import ROOT

KEY = "a key of sixteen or more"


def documented_command(port: int, more: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments and the variables of the documented command. `more`: further arguments, which win."""
    page = (FOLDER / "vllm.md").read_text()
    (found,) = re.findall(r"^\$ (PYTHONPATH=(?:.*\\\n)*.*)", page, re.M)
    words = shlex.split(found.replace("\\\n", " ").replace("8001", str(port)))
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_0-9]+=", word))
    arguments = words[len(variables) :]
    arguments[0] = os.environ["ERRATA_VLLM_PYTHON"]
    return [*arguments, "--enforce-eager", "--max-num-seqs", "8", *more], variables


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def vllm_serve(port: int, output: Path, more: list[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A vLLM that is about to listen at a port of loopback, and is gone when the block ends."""
    arguments, variables = documented_command(port, more or [])
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


@contextmanager
def running_vllm(rig: Rig, folder: Path, room_tokens: int = 20_000, **more: Any) -> Iterator[str]:
    """A vLLM that serves the rig's model and answers at the URL that the block gets. `more`: arguments of vLLM, by the
    names that they have in Python."""
    adapters = rig.editors[ADAPTERS].extras.fixed_adapters
    assert adapters is not None
    ours = vllm_arguments(rig.hosted, rig.editors["grace"].sites[0], 8, room_tokens, None, adapters, {})
    given = {"kv_cache_memory_bytes": ours["kv_cache_memory_bytes"], **more}
    port, output = free_port(), folder / "vllm.log"
    with vllm_serve(port, output, [word for each in given.items() for word in _as_words(*each)]) as vllm:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url), vllm, output.read_text)
        yield url


def _as_words(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    return [option] if value is True else [option, str(value)]


def attached_engine(rig: Rig, url: str) -> VllmEngine:
    """The engine in front of the vLLM at this address."""
    served = ServedModel.of(rig.hosted, rig.editors["grace"].sites[0].module)
    return VllmEngine(
        rig.hosted,
        rig.editors,
        rig.engine.scope,
        slots=8,
        queue_limit=64,
        fit_share=0.5,
        vllm=VllmSupervisor(lambda: AttachedVllm(url, KEY, served), deadline_s=120),
    )
