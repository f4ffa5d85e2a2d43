"""Which edits' names a question says, of thousands: an index by the words of their names."""

from collections.abc import Iterable, Sequence

from app.domain.words import Span, says


class Mentions:
    """Finds rows by the names that they go by, in time that grows with the question and not with the number of rows."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Span, ...]] = {}
        self._by_word: dict[str, set[int]] = {}

    def add(self, row: int, names: Sequence[Span]) -> None:
        self._names[row] = tuple(names)
        for word in _posted(names):
            self._by_word.setdefault(word, set()).add(row)

    def remove(self, row: int) -> None:
        for word in _posted(self._names.pop(row)):
            rows = self._by_word[word]
            rows.discard(row)
            if not rows:
                del self._by_word[word]

    def names(self, row: int) -> tuple[Span, ...]:
        return self._names[row]

    def said(self, row: int, words: Sequence[str]) -> bool:
        """Whether one of the row's names is said; a row without names asks for none."""
        names = self._names[row]
        return not names or any(says(words, span) for span in names)

    def found(self, words: Sequence[str]) -> set[int]:
        """Rows of whose names one is said."""
        near = {row for word in set(words) for row in self._by_word.get(word, ())}
        return {row for row in near if self.said(row, words)}


def _posted(names: Iterable[Span]) -> set[str]:
    """A name is found by its longest word, or, of three words and more, by its two longest, as one may be misspelt."""
    return {word for span in names for word in sorted(span, key=len)[-2 if len(span) > 2 else -1 :]}
