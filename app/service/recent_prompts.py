"""Recent prompts: previews look at them, and scopes are set in contrast to them.

They are kept only if the operator enables it, in memory, up to a limit.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from app.domain.errors import InvalidRequest

MOST_NAMESPACES = 100
"""The most namespaces: anybody may name one, and beyond this the least recently used is forgotten."""

Prompts = OrderedDict[str, None]


class RecentPrompts:
    """The newest `most` distinct prompts of each namespace on this server, and as many that no edit may answer, as
    declared by an operator, which recent prompts never displace. With `most` of 0 none are kept. Threads may share
    it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[str, tuple[Prompts, Prompts]] = OrderedDict()  # (recent, others) by namespace
        self._lock = threading.Lock()

    def add(self, namespace: str, prompt: str, *, others: bool = False) -> None:
        """Keep a prompt. `others` declares, for an operator, that no edit may answer it."""
        if not self.most:
            return
        with self._lock:
            recent, named = self._kept.setdefault(namespace, (OrderedDict(), OrderedDict()))
            if others:
                recent.pop(prompt, None)
            kept = named if others or prompt in named else recent
            kept[prompt] = None
            kept.move_to_end(prompt)
            if len(kept) > self.most:
                kept.popitem(last=False)
            self._kept.move_to_end(namespace)
            if len(self._kept) > MOST_NAMESPACES:
                self._kept.popitem(last=False)

    def add_all(self, namespace: str, prompts: Sequence[str], *, others: bool = False) -> int:
        """Keep prompts from elsewhere; returns the number kept now. Raises InvalidRequest if prompts are not kept
        here."""
        if not self.most:
            raise InvalidRequest("Recent prompts are not kept here: set ERRATA_RECENT_PROMPTS to how many may be.")
        for prompt in prompts:
            self.add(namespace, prompt, others=others)
        return self.counts().get(namespace, 0)

    def newest(self, namespace: str, count: int) -> list[str]:
        """The newest recent prompts, newest first, followed by those that no edit may answer."""
        recent, others = self.both(namespace)
        return [*reversed(recent), *reversed(others)][:count]

    def both(self, namespace: str) -> tuple[list[str], list[str]]:
        """The recent prompts, and those that no edit may answer, each oldest first."""
        with self._lock:
            recent, others = self._kept.get(namespace, ((), ()))
            return list(recent), list(others)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {namespace: len(recent) + len(others) for namespace, (recent, others) in self._kept.items()}

    def forget(self, namespace: str | None = None) -> int:
        """Delete the prompts of a namespace, or all; returns their number."""
        with self._lock:
            gone = [namespace] if namespace is not None else list(self._kept)
            return sum(len(kept) for name in gone for kept in self._kept.pop(name, ()))
