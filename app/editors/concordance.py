"""Which long questions share words with a prompt that does not name what they are about, of thousands."""

from collections import Counter
from collections.abc import Iterable

LEAST = 3
"""Words that both have."""
MOST = 64
"""Words of a prompt that is looked up; a longer one is a text."""


class Concordance:
    """Knows of each edit the words of its question that generic phrasings lack: by the others it is like many."""

    def __init__(self) -> None:
        self._words: dict[int, frozenset[str]] = {}
        self._by_word: dict[str, set[int]] = {}

    def add(self, row: int, words: Iterable[str]) -> None:
        self._words[row] = words = frozenset(words)
        if len(words) >= LEAST:
            for word in words:
                self._by_word.setdefault(word, set()).add(row)

    def remove(self, row: int) -> None:
        for word in self._words.pop(row):
            rows = self._by_word.get(word, set())
            rows.discard(row)
            if not rows:
                self._by_word.pop(word, None)

    def sharing(self, words: frozenset[str]) -> list[int]:
        """Rows that share so many of these words, and at least half of their own."""
        if not LEAST <= len(words) <= MOST:
            return []
        found = Counter(row for word in words for row in self._by_word.get(word, ()))
        return [row for row, count in found.items() if count >= max(LEAST, len(self._words[row]) / 2)]
