"""Servers as separate processes: started, awaited, suspended while another is measured, ended."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from app.domain.errors import InvalidRequest

START_S = 600.0
END_S = 10.0
LAST_LINES = 15
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    sys.exit(f"{sys.argv[1]} cannot be started: {error.strerror}.")
"""
"""Replaces itself by the server, which then dies with its parent: a killed bench leaves no server behind."""


class ServerProcess:
    """A server in its own process group, so that signals reach its processes. Its output goes to a file.

    `environment`: variables for it, unless this process already sets them.
    """

    def __init__(
        self, name: str, command: Sequence[str], port: int, ready: str, environment: Mapping[str, str]
    ) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self._command, self._ready = command, ready
        self._environment = {**environment, **os.environ}
        self._process: asyncio.subprocess.Process | None = None
        self._output: Any = None

    async def start(self, on_step: Callable[[str], None]) -> None:
        """Starts the server and waits until it reports ready. Raises InvalidRequest, with the end of its output, if it
        ends or takes too long."""
        on_step(f"{self.name} is starting")
        self._output = tempfile.NamedTemporaryFile(prefix="errata-bench-", suffix=".log")  # noqa: SIM115
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LAUNCHER, *self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=self._environment,
            start_new_session=True,
        )
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            while True:
                if self._process.returncode is not None:
                    raise InvalidRequest(f"{self.name} has ended before it was ready:\n{self._last_lines()}")
                if loop.time() - began > START_S:
                    raise InvalidRequest(f"{self.name} was not ready within {START_S:.0f} s:\n{self._last_lines()}")
                with suppress(httpx.HTTPError):
                    if (await client.get(self._ready)).status_code == 200:
                        break
                await asyncio.sleep(0.5)
        on_step(f"{self.name} is ready after {loop.time() - began:.0f} s")

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._process.wait()
        if self._process is not None:
            self._signal(signal.SIGKILL)  # also ends orphans in the group
            await self._process.wait()
            # the kernel ends orphans a moment later; until then they take processor time from what is measured next
            async with asyncio.timeout(END_S):
                while any(
                    state != "Z" and int(group) == self._process.pid for state, _, group, *_ in _stats().values()
                ):
                    await asyncio.sleep(0.01)
        if self._output is not None:
            self._output.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspends the processes, which then take no processor time: those of its group, and those that they started
        in groups of their own, as this server starts vLLM."""
        self._signal(signal.SIGSTOP)
        others = self._started_elsewhere()
        for each in others:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in others:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)
            self._signal(signal.SIGCONT)

    def _started_elsewhere(self) -> list[int]:
        """The processes outside of the group whose parents, or their parents, are in it."""
        if self._process is None:
            return []
        stats = _stats()
        parents = {pid for pid, (_, _, group, *_) in stats.items() if int(group) == self._process.pid}
        started: set[int] = set()
        while parents:
            parents = {pid for pid, (_, parent, *_) in stats.items() if int(parent) in parents} - started
            started |= parents
        return [pid for pid in started if int(stats[pid][2]) != self._process.pid]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _last_lines(self) -> str:
        return "\n".join(Path(self._output.name).read_text(errors="replace").splitlines()[-LAST_LINES:])


def _stats() -> dict[int, list[str]]:
    """The fields of `/proc/PID/stat` from the state on, of each process; none on systems without it."""
    stats: dict[int, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
    return stats


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
