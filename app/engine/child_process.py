"""A process that shares a socket with this one, and ends with it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

END_S = 20.0
"""The time in which a process may end by itself once its socket is closed, so that it has an exit code, in seconds."""


class ChildProcess:
    """A started process. `connection` is this end of the socket; the process receives its own end's descriptor as the
    last argument, and has to end when the socket closes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ending, self._ended = threading.Lock(), False
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the server, which then ends this process in its own time
            )
        self._socket = mine
        self.connection = Connection(os.dup(mine.fileno()))

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, grace_s: float) -> int:
        """Ask the process to exit, and kill it after `grace_s` seconds. Returns its exit code. Thread-safe."""
        with suppress(OSError):  # the other end has gone already
            self._socket.shutdown(socket.SHUT_RDWR)  # a mere close goes unnoticed there while a thread reads here
        with self._ending:
            if not self._ended:
                self._ended = True
                try:
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(grace_s)
                finally:
                    # what it started is in the same group and must not outlive it, whatever it died of
                    with suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    self._process.wait()
                    self._socket.close()
            return self._process.returncode
