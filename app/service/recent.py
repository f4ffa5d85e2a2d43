"""Prompts that were asked lately: previews look at them, and scope is taken in contrast to them.

They are kept only where the operator turns it on, in memory, and bounded.
"""

from collections import OrderedDict
from collections.abc import Sequence

from app.domain.errors import InvalidRequest

MOST_NAMESPACES = 100
"""Anyone may name a namespace: of more, the one that was asked in longest ago is forgotten."""


class Recent:
    """The newest `most` different prompts of each namespace, this server's only. None are kept where `most` is 0."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._prompts: OrderedDict[str, OrderedDict[str, bool]] = OrderedDict()

    def add(self, namespace: str, prompt: str, *, others: bool = False) -> None:
        """`others`: an operator says that no edit is to answer it."""
        if not self.most:
            return
        kept = self._prompts.setdefault(namespace, OrderedDict())
        kept[prompt] = others or kept.get(prompt, False)
        kept.move_to_end(prompt)
        if len(kept) > self.most:
            kept.popitem(last=False)
        self._prompts.move_to_end(namespace)
        if len(self._prompts) > MOST_NAMESPACES:
            self._prompts.popitem(last=False)

    def add_all(self, namespace: str, prompts: Sequence[str], *, others: bool = False) -> int:
        """What is asked elsewhere, or was asked before. -> how many are kept now. Raises InvalidRequest where none may
        be."""
        if not self.most:
            raise InvalidRequest("Recent prompts are not kept here: set ERRATA_RECENT_PROMPTS to how many may be.")
        for prompt in prompts:
            self.add(namespace, prompt, others=others)
        return len(self._prompts[namespace]) if prompts else 0

    def newest(self, namespace: str, count: int) -> list[str]:
        return list(reversed(self._prompts.get(namespace, ())))[:count]

    def others(self, namespace: str) -> frozenset[str]:
        """Those that no edit is to answer."""
        kept = list(self._prompts.get(namespace, {}).items())  # at once: other threads ask while prompts are added
        return frozenset(prompt for prompt, others in kept if others)

    def counts(self) -> dict[str, int]:
        return {namespace: len(kept) for namespace, kept in self._prompts.items()}

    def forget(self, namespace: str | None = None) -> int:
        """Delete those of a namespace, or all. -> how many there were."""
        gone = [namespace] if namespace is not None else list(self._prompts)
        return sum(len(self._prompts.pop(name, ())) for name in gone)
