"""Tokenisation of texts for name lookup: words are folded, so that a name matches however it is inflected or spelt."""

import re
from collections.abc import Sequence
from functools import lru_cache
from unicodedata import normalize

Span = tuple[str, ...]
"""Folded words that must occur side by side, in this order."""

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_]+")  # in scripts without spaces each character is a word
_ACCENT = re.compile("[\u0300-\u036f]")
_POSSESSIVE = re.compile(r"['’]s\b")
MIN_MISSPELT_LETTERS = 5
"""Minimum length, in letters, of a word in which one letter may be wrong: a single letter tells Iran from Iraq."""


def words_of(text: str) -> list[str]:
    """Folded words in order, without plural and possessive endings."""
    return list(_words_of(text))


@lru_cache(maxsize=256)  # a prompt is searched for many names
def _words_of(text: str) -> tuple[str, ...]:
    return tuple(_singular(word) for word in _WORD.findall(_POSSESSIVE.sub("", fold(text))))


@lru_cache(maxsize=256)
def plain_words(text: str) -> tuple[str, ...]:
    """Lower-cased, unaccented words in order, with their endings: closed-class words are looked up by these."""
    return tuple(_WORD.findall(fold(text)))


def collapse_spaces(text: str) -> str:
    """The text with runs of white space collapsed to one blank and none at the ends."""
    return " ".join(text.split())


def same_text(answer: str, target: str) -> bool:
    """Equality of whole answers; only white space, at the ends and in runs, is ignored."""
    return collapse_spaces(answer) == collapse_spaces(target)


def begins_text(said: str, target: str) -> bool:
    """True if an answer that begins so may still become the target, by `same_text`."""
    return collapse_spaces(target).startswith(collapse_spaces(said))


def fold(text: str) -> str:
    """Lower case without accents, which people often leave out."""
    text = text.casefold()
    return text if text.isascii() else normalize("NFC", _ACCENT.sub("", normalize("NFD", text)))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def placed_words(text: str) -> list[tuple[str, int, int]]:
    """(folded word, start, end) of each word; offsets are in characters."""
    left_out = {place for match in _POSSESSIVE.finditer(text) for place in range(*match.span())}
    matches = (match for match in _WORD.finditer(text) if match.start() not in left_out)
    return [(_singular(fold(match[0])), *match.span()) for match in matches]


def says(words: Sequence[str], span: Span) -> bool:
    """True if the words contain a name exactly or, for names of three words and more, with one word a letter off."""
    count = len(span)
    return any(_same(span, words[at : at + count]) for at in range(len(words) - count + 1)) if count else False


def _same(span: Span, words: Sequence[str]) -> bool:
    wrong = [at for at, word in enumerate(span) if word != words[at]]
    if not wrong:
        return True
    return len(span) > 2 and len(wrong) == 1 and _a_letter_off(span[wrong[0]], words[wrong[0]])


def _a_letter_off(a: str, b: str) -> bool:
    """True if the words differ by one changed, missing or added letter: never the first letter, never a digit."""
    if min(len(a), len(b)) < MIN_MISSPELT_LETTERS or a[0] != b[0] or abs(len(a) - len(b)) > 1:
        return False
    short, long = sorted((a, b), key=len)
    at = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    changed, rest = (short[at] + long[at], short[at + 1 :]) if len(short) == len(long) else (long[at], short[at:])
    return rest == long[at + 1 :] and changed.isalpha()


def locate(text: str, name: str) -> int | None:
    """Character offset at which the first occurrence of a name ends, matched by spelling, else by folded words; None if
    absent."""
    if (at := text.find(name)) >= 0:
        return at + len(name)
    place = _place(text, tuple(words_of(name)))
    return None if place is None else place[1]


def surface(text: str, span: Span) -> str | None:
    """The spelling of these words where the text first says them; None if it does not."""
    place = _place(text, span)
    return None if place is None else text[slice(*place)]


def _place(text: str, span: Span) -> tuple[int, int] | None:
    placed = placed_words(text)
    words = tuple(word for word, _, _ in placed)
    starts = (at for at in range(len(words) - len(span) + 1) if span and words[at : at + len(span)] == span)
    at = next(starts, None)
    return None if at is None else (placed[at][1], placed[at + len(span) - 1][2])
