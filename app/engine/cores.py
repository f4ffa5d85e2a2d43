"""How many of the machine's cores this process can have.

torch's threads wait for one another, so a thread that shares its core with somebody else's work slows all of them. With
a thread less that does not wait, decoding keeps most of its speed.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds of time that passed, that this process computed, and that the cores it may use were idle, in all."""

    passed: float
    computed: float
    idle: float


def read(stat: Path = Path("/proc/stat")) -> Reading | None:
    """None where the system does not tell, as on macOS."""
    try:
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in stat.read_text().splitlines()]
    except (AttributeError, OSError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait: a core that waits for a disk is free to compute
    spent = [[int(field) for field in line[1:]] for line in lines if line and line[0] in mine]
    if not any(map(sum, spent)):
        return None  # a sandbox that counts nothing: never idle would mean never free
    idle = sum(fields[3] + fields[4] for fields in spent)
    return Reading(time.monotonic(), time.process_time(), idle / tick)


class Cores:
    """`threads` is what torch is to use now: at most `wanted`, and no more than the cores free for this process."""

    def __init__(self, wanted: int, look: Callable[[], Reading | None] = read) -> None:
        self.threads = self._wanted = wanted
        self._look, self._last = look, look() if wanted > 1 else None

    def changed(self) -> bool:
        """Looks again if it is time; whether `threads` is another number than before."""
        if self._last is None or time.monotonic() - self._last.passed < PERIOD_S:
            return False
        now, last = self._look(), self._last
        if now is None:
            return False
        self._last = now
        free = (now.idle - last.idle + now.computed - last.computed) / (now.passed - last.passed)
        before, self.threads = self.threads, max(1, min(self._wanted, int(free + 0.5)))
        return self.threads != before
