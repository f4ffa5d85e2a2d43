"""The words of edits' keys, by which a question may be told from all of them before it is encoded.

A question that says no name of an edit, and a name of which the edit's key says no word, does not ask for it, however
near it is: `ScopeDecider` vetoes it. Where this holds for every live edit, the encoder has nothing to add.
"""

from collections.abc import Collection, Iterable, Sequence

from app.domain.words import Span, words_of


class KeyWords:
    """An index from words to the rows whose keys say them."""

    def __init__(self) -> None:
        self._words: dict[int, tuple[str, ...]] = {}
        self._rows: dict[str, set[int]] = {}
        self._nameless: set[int] = set()

    def add(self, row: int, texts: Sequence[str], names: Sequence[Span]) -> None:
        """Add a row with the texts of its keys and the names of its edit."""
        words = self._words[row] = tuple(dict.fromkeys(word for text in texts for word in words_of(text)))
        for word in words:
            self._rows.setdefault(word, set()).add(row)
        if not names:
            self._nameless.add(row)

    def remove(self, row: int) -> None:
        for word in self._words.pop(row):
            rows = self._rows[word]
            rows.discard(row)
            if not rows:
                del self._rows[word]
        self._nameless.discard(row)

    def all_named(self, among: Collection[int]) -> bool:
        """True if each of these rows has a name. An edit without one is ruled out by no other name."""
        return _disjoint(self._nameless, among)

    def is_strange(self, name: Iterable[str], among: Collection[int]) -> bool:
        """True if no key of these rows says any word of a name."""
        return all(_disjoint(self._rows.get(word, ()), among) for word in name)


def _disjoint(rows: Collection[int], among: Collection[int]) -> bool:
    """True if no row is in both, of which `among` has a fast membership test."""
    few, many = (rows, among) if len(rows) < len(among) else (among, rows)
    return not any(row in many for row in few)
