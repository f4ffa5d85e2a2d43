"""Prompts that were asked lately: previews look at them, and scope is taken in contrast to them.

They are kept only where the operator turns it on, in memory, and bounded.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from app.domain.errors import InvalidRequest

MOST_NAMESPACES = 100
"""Anyone may name a namespace: of more, the one that was asked in longest ago is forgotten."""

Prompts = OrderedDict[str, None]


class Recent:
    """The newest `most` different prompts of each namespace, this server's only; and as many that an operator says no
    edit is to answer, which nothing that is merely asked pushes out. None are kept where `most` is 0. Threads may share
    it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[str, tuple[Prompts, Prompts]] = OrderedDict()  # asked, and others
        self._lock = threading.Lock()

    def add(self, namespace: str, prompt: str, *, others: bool = False) -> None:
        """`others`: an operator says that no edit is to answer it."""
        if not self.most:
            return
        with self._lock:
            asked, named = self._kept.setdefault(namespace, (OrderedDict(), OrderedDict()))
            if others:
                asked.pop(prompt, None)
            kept = named if others or prompt in named else asked
            kept[prompt] = None
            kept.move_to_end(prompt)
            if len(kept) > self.most:
                kept.popitem(last=False)
            self._kept.move_to_end(namespace)
            if len(self._kept) > MOST_NAMESPACES:
                self._kept.popitem(last=False)

    def add_all(self, namespace: str, prompts: Sequence[str], *, others: bool = False) -> int:
        """What is asked elsewhere, or was asked before. -> how many are kept now. Raises InvalidRequest where none may
        be."""
        if not self.most:
            raise InvalidRequest("Recent prompts are not kept here: set ERRATA_RECENT_PROMPTS to how many may be.")
        for prompt in prompts:
            self.add(namespace, prompt, others=others)
        return self.counts().get(namespace, 0)

    def newest(self, namespace: str, count: int) -> list[str]:
        """The newest prompts first; those that no edit is to answer behind them."""
        asked, others = self.both(namespace)
        return [*reversed(asked), *reversed(others)][:count]

    def both(self, namespace: str) -> tuple[list[str], list[str]]:
        """What was asked, and what no edit is to answer, the oldest first."""
        with self._lock:
            asked, others = self._kept.get(namespace, ((), ()))
            return list(asked), list(others)

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {namespace: len(asked) + len(others) for namespace, (asked, others) in self._kept.items()}

    def forget(self, namespace: str | None = None) -> int:
        """Delete those of a namespace, or all. -> how many there were."""
        with self._lock:
            gone = [namespace] if namespace is not None else list(self._kept)
            return sum(len(kept) for name in gone for kept in self._kept.pop(name, ()))
