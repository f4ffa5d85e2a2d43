"""A log in whose place another one may be put, as after FLUSHALL, a restore from a backup, or a failover."""

from typing import Any

from app.store.memory import MemoryLog

PERIOD_S = 0.05


class ReplacedLog:
    """A Log that is `now`, whichever that is; what the log before it held is not known any more."""

    def __init__(self, now: MemoryLog | None = None) -> None:
        self.now = now or MemoryLog()

    def wait(self, after: int, timeout_s: float) -> bool:
        return self.now.wait(after, min(timeout_s, PERIOD_S))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)
