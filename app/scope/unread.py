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
        for is_word, letters in groupby(text[at:], key=_is_of_a_word):
            word = "".join(letters)
            after = at + len(word)
            has_none = not word.isascii() and any(at <= begin < after for begin in unknown)
            if is_word and (self._is_strange(word) or (has_none and not _touches_a_sign(text, at, after))):
                words.append(normalize("NFC", word.casefold()))
            at = after
        return tuple(words)

    def _is_strange(self, word: str) -> bool:
        """True if two neighbouring letters are in scripts that are not known. A single one may be a symbol, as in
        "What is π?", and has a piece of its own."""
        scripts = filter(None, map(_script, word))
        return any(not {one, other} & self._known for one, other in pairwise(scripts))


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    """The script of a letter or of a mark on one, by the first word of its Unicode name; empty for other characters and
    for marks of no script, such as an accent or what makes an emoji of a digit."""
    plain = normalize("NFKC", letter)[:1]  # full-width letters are read as plain ones
    script = name(plain, "").partition(" ")[0] if plain and category(plain)[0] in "LM" else ""
    return "" if script in ("COMBINING", "VARIATION") else script


def _is_of_a_word(letter: str) -> bool:
    return bool(_script(letter)) or category(letter)[0] == "M"


def _touches_a_sign(text: str, begin: int, end: int) -> bool:
    """True if a sign stands right before or after a part of a text: in "schön😊" it is the sign that has no piece."""
    return any(category(each)[0] == "S" for each in text[max(0, begin - 1) : begin] + text[end : end + 1])
