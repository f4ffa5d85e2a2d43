"""The beginnings of edits' targets, and whether a prompt ends with one."""

import threading
from collections import Counter
from collections.abc import Sequence


class TargetOpenings:
    """The distinct targets of loaded edits by their first token. Threads may share it."""

    def __init__(self) -> None:
        self._by_first: dict[int, Counter[tuple[int, ...]]] = {}
        self._lock = threading.Lock()

    def add(self, target: tuple[int, ...]) -> None:
        if target:
            with self._lock:
                self._by_first.setdefault(target[0], Counter())[target] += 1

    def remove(self, target: tuple[int, ...]) -> None:
        if target:
            with self._lock:
                same_first = self._by_first[target[0]]
                same_first[target] -= 1
                if not same_first[target]:
                    del same_first[target]
                if not same_first:
                    del self._by_first[target[0]]

    def end(self, ids: Sequence[int]) -> bool:
        """True if token ids end with the first tokens of some target, and not with the whole of it."""
        with self._lock:
            return any(
                len(target) > len(ids) - at and target[: len(ids) - at] == tuple(ids[at:])
                for at, first in enumerate(ids)
                for target in self._by_first.get(first, ())
            )
