"""The words of a text that an encoder cannot read: those in a script of which its vocabulary has hardly more than the
letters, and those that it has no pieces for.

Two questions in such words may have the same vector and ask different things, so that only the very same words count.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from unicodedata import category, name, normalize

LEAST_PIECES = 1000
"""The pieces in a script below which an encoder knows no language that is written in it: less than the commonest words,
or the commonest characters where each is a word. all-MiniLM-L6-v2 has 488 Chinese characters, and 27,763 pieces in
Latin script."""


class Reader:
    """Tells which words of a text an encoder with this vocabulary cannot read."""

    def __init__(self, vocabulary: Iterable[str], unknown: int | None) -> None:
        """`unknown` is the id that stands for whatever the vocabulary has no pieces for, if there is one."""
        counts = Counter(script for piece in vocabulary for script in {_script(letter) for letter in piece} if script)
        most = max(counts.values(), default=0)
        self._known = {script for script, count in counts.items() if count >= min(LEAST_PIECES, most)} | {""}
        self._unknown = unknown

    def unread(self, text: str, ids: Sequence[int], begins: Sequence[int]) -> tuple[str, ...]:
        """The casefolded words that cannot be read, in order, of a text whose pieces `ids` begin at `begins`. Of a text
        too long for the encoder, what is before its first piece is left out."""
        if text.isascii():
            return ()
        unknown = [begin for piece, begin in zip(ids, begins, strict=True) if piece == self._unknown]
        words: list[str] = []
        at = begins[0] if begins else 0
        for is_word, letters in groupby(text[at:], key=lambda letter: bool(_script(letter))):
            word = "".join(letters)
            has_none = not word.isascii() and any(at <= begin < at + len(word) for begin in unknown)  # not "thanks😊"
            if is_word and (has_none or self._is_strange(word)):
                words.append(word.casefold())
            at += len(word)
        return tuple(words)

    def _is_strange(self, word: str) -> bool:
        """True if two neighbouring letters are in scripts that are not known. A single one may be a symbol, as in
        "What is π?", and has a piece of its own."""
        return any(not {_script(one), _script(other)} & self._known for one, other in pairwise(word))


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    """The script of a letter or of a mark on one, by the first word of its Unicode name; empty for other characters."""
    plain = normalize("NFKC", letter)[:1]  # full-width letters are read as plain ones
    return name(plain, "").partition(" ")[0] if plain and category(plain)[0] in "LM" else ""
