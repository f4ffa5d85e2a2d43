"""Estimates how many CPU cores are available to this process.

torch's threads synchronise constantly, so a thread that shares its core with other work slows all of them down. With
one thread fewer and no waiting, decoding keeps most of its speed.
"""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 0.5


def affinity() -> frozenset[int]:
    """The cores that this thread may use; none where the system does not tell, as on macOS."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


AT_START = affinity()
"""The cores that this process was started with."""


def leave(cores: Collection[int]) -> None:
    """Keep all threads of this process off these cores, if it has others, and let them use all others."""
    if others := AT_START.difference(cores):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # the thread has ended, or may not be moved
                os.sched_setaffinity(int(thread.name), others)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Cumulative times in seconds: wall clock, CPU time of this process, and idle time summed over the cores it may
    use."""

    passed: float
    computed: float
    idle: float


def read(stat: Path = Path("/proc/stat")) -> CpuTimes | None:
    """Takes a reading; None if the system does not provide one, as on macOS."""
    try:
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in stat.read_text().splitlines()]
    except (AttributeError, OSError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait: a core in iowait is free to compute
    spent = [[int(field) for field in line[1:]] for line in lines if line and line[0] in mine]
    if not any(map(sum, spent)):
        return None  # a sandbox without accounting: zero idle time would read as no free core
    idle = sum(fields[3] + fields[4] for fields in spent)
    return CpuTimes(time.monotonic(), time.process_time(), idle / tick)


class Cores:
    """`threads` is the number of threads that torch should use now: at most `wanted`, and at most the number of free
    cores."""

    def __init__(self, wanted: int, look: Callable[[], CpuTimes | None] = read) -> None:
        self.threads = self._wanted = wanted
        self._look, self._last = look, look() if wanted > 1 else None

    def changed(self) -> bool:
        """Takes a new reading once per period. -> whether `threads` changed."""
        if self._last is None or time.monotonic() - self._last.passed < PERIOD_S:
            return False
        now, last = self._look(), self._last
        if now is None:
            return False
        self._last = now
        free = (now.idle - last.idle + now.computed - last.computed) / (now.passed - last.passed)
        before, self.threads = self.threads, max(1, min(self._wanted, int(free + 0.5)))
        return self.threads != before
