"""Finds the edits whose names occur in a question, among thousands, through an index of the words of names."""

from collections.abc import Collection, Iterable, Sequence

from app.domain.words import Span, says


class Mentions:
    """Finds rows by their names. The time grows with the length of the question, and at most with the number of rows
    searched; rows of other namespaces add nothing to it."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Span, ...]] = {}
        self._by_word: dict[str, set[int]] = {}

    def add(self, row: int, names: Sequence[Span]) -> None:
        self._names[row] = tuple(names)
        for word in _indexed_words(names):
            self._by_word.setdefault(word, set()).add(row)

    def remove(self, row: int) -> None:
        for word in _indexed_words(self._names.pop(row)):
            rows = self._by_word[word]
            rows.discard(row)
            if not rows:
                del self._by_word[word]

    def mentioned(self, row: int, words: Sequence[str]) -> bool:
        """True if the question contains one of the row's names, or if the row has none."""
        names = self._names[row]
        return not names or any(says(words, span) for span in names)

    def rows_in(self, words: Sequence[str], among: Collection[int]) -> set[int]:
        """The rows in `among` one of whose names the question contains. `among` needs a fast membership test."""
        candidates: set[int] = set()
        for word in set(words):
            rows: Collection[int] = self._by_word.get(word, ())
            few, many = (rows, among) if len(rows) < len(among) else (among, rows)
            candidates.update(row for row in few if row in many)
        return {row for row in candidates if self.mentioned(row, words)}


def _indexed_words(names: Iterable[Span]) -> set[str]:
    """The words under which a name is indexed: its longest or, for names of three words and more, its two longest,
    because one may be misspelt."""
    return {word for span in names for word in sorted(span, key=len)[-2 if len(span) > 2 else -1 :]}
