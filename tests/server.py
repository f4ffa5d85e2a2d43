"""A real server process on loopback, for tests that kill, restart and talk HTTP to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
PATIENCE_S = 240.0
"""A limit that only something that hangs exceeds, also where several servers share a core; it ends before a test's."""


class Server:
    """`errata serve` with its log in a folder; `settings` are ERRATA_* variables."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self._folder = folder
        self._arguments = arguments
        self._settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.client = httpx.Client(base_url=f"http://{self.address}", timeout=PATIENCE_S, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        return (self._folder / "server.log").read_text()

    def start(self, within_s: float = PATIENCE_S) -> None:
        command = [sys.executable, "-m", "app", "serve", "--port", self.address.split(":")[1]]
        command += ["--store", f"sqlite:///{self._folder / 'errata.db'}", *self._arguments]
        kept = {"ERRATA_CACHE_DIR"}  # that of the run, not the user's
        environment = {
            k: v for k, v in os.environ.items() if k in kept or not (k.startswith("ERRATA_") or k == "REDIS_URL")
        } | self._settings
        with open(self._folder / "server.log", "ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            assert self._process.poll() is None, self.output
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"not ready in time:\n{self.output}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Until it has ended: the exit code."""
        assert self._process is not None
        return self._process.wait(timeout=PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM, and wait: the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self.send_signal(signal.SIGTERM)
        return self.wait()


@contextmanager
def running(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    server = Server(folder, *arguments, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
