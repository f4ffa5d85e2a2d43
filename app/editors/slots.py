"""Whom a common question is about, read from where phrasings that ship have {}: `the conservation status of Guinea
baboon`, `National Highway 45 is located in`. Capitals alone show a part of such names only."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.editors.scope import COMMON, JOINER, POSSESSIVE, SMALL, placed_words, words_of

_AUXILIARY = frozenset(words_of("is are was were be do does did has have had will can could would should may must"))
_TENSES = dict(zip(words_of("was were did"), words_of("is are does"), strict=True))
_NO_NOUN = re.compile(r"(?:ed|ing|ly)$")
_LATER_TEXT = "today tomorrow yesterday yet still anyway ever once pls plz thanks right exactly"
_LATER = frozenset(_LATER_TEXT.split())
"""After a name, but no part of it."""
_APART = re.compile(r"[?!:;\n]|,(?!\s*[A-Z0-9])")
MOST_WORDS = 10


class Slots:
    """Knows phrasings by the words before and after {}; `generic` are the words that say what is asked."""

    def __init__(self, phrasings: Iterable[str], generic: Iterable[str]) -> None:
        self._after: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for text in phrasings:
            before, _, after = text.partition("{}")
            self._after[_timeless(words_of(before))].add(_timeless(words_of(after)))
        self._no_name = COMMON | SMALL | _LATER | frozenset(generic)
        self._most_before = max(map(len, self._after), default=0)
        self._most_after = max((len(after) for each in self._after.values() for after in each), default=0)

    def name(self, question: str) -> str | None:
        """As the question writes it; None for what is no phrasing word for word, tense aside, or has more than what
        looks like a name in the place of one."""
        placed = placed_words(question)
        words = _timeless(word for word, _ in placed)
        found = self._around(words)
        if found is None:
            return None
        before, after = found
        inside = placed[before : len(placed) - after]
        if inside[0][0] in ("the", "a", "an") and (not before or inside[0][1][0].islower()):
            inside = inside[1:]
        if not inside or len(inside) > MOST_WORDS or (not before and inside[0][0] in COMMON):
            return None
        begin, end = inside[0][1].start(), inside[-1][1].end()
        name = question[begin:end]
        inverted = not after and before > 0 and words[before - 1] in _AUXILIARY  # where was Ada seen
        more = not inverted and not POSSESSIVE.search(name)  # what is somebody's may be what is asked
        if _APART.search(name) or not self._is_name([(word, match[0]) for word, match in inside], more=more):
            return None
        return name + ")" if "(" in name and question[end : end + 1] == ")" else name

    def _around(self, words: tuple[str, ...]) -> tuple[int, int] | None:
        """How many words before and after the slot, of the phrasing that leaves the least in it."""
        fits = [
            (before, after)
            for before in range(min(self._most_before, len(words) - 1) + 1)
            if (ends := self._after.get(words[:before]))
            for after in range(min(self._most_after, len(words) - before - 1) + 1)
            if words[len(words) - after :] in ends and before + after > 1
        ]
        return max(fits, key=sum, default=None)

    def _is_name(self, words: Sequence[tuple[str, str]], *, more: bool) -> bool:
        """Begins with a capital, or a number before one; in lower case are small words between capitals, and, if there
        may be `more`, words at its end that no generic phrasing has and that look like nouns."""
        capital = [at for at, (_, written) in enumerate(words) if written[0].isupper() or not written.islower()]
        if not capital or self._no_name.issuperset(word for word, _ in words):
            return False
        if any(not written[0].isdigit() for _, written in words[: capital[0]]):
            return False
        within, behind = words[capital[0] : capital[-1]], [word for word, _ in words[capital[-1] + 1 :]]
        if any(written.islower() and written[0].isalpha() and word not in JOINER for word, written in within):
            return False
        return not behind or (more and not any(word in self._no_name or _NO_NOUN.search(word) for word in behind))


def _timeless(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(_TENSES.get(word, word) for word in words)
