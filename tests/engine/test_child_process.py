"""A process that shares a socket with this one ends with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from app.engine.child_process import ChildProcess

WAITS = """
import sys
from multiprocessing.connection import Connection
try:
    Connection(int(sys.argv[1])).recv_bytes()
except EOFError:
    pass
"""
STUBBORN = "import signal\nsignal.pause()"
SERVER = f"""
import os, sys, time
from app.engine.child_process import ChildProcess
print(ChildProcess([sys.executable, "-c", {WAITS!r}], os.environ).pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """True if the process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_ends_by_itself_if_it_can_and_is_killed_otherwise() -> None:
    assert ChildProcess([sys.executable, "-c", WAITS], os.environ).end(60) == 0
    stubborn = ChildProcess([sys.executable, "-c", STUBBORN], os.environ)
    assert stubborn.end(0.1) == -9
    assert stubborn.end(0.1) == -9, "a second end changes nothing"


def test_it_ends_with_its_server_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
    ends = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < ends
        time.sleep(0.02)
