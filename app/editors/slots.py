"""Whom a common question is about, read from where phrasings that ship have {}: `the conservation status of Guinea
baboon`, `National Highway 45 is located in`. Capitals alone show a part of such names only."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.editors.scope import COMMON, JOINER, POSSESSIVE, SMALL, placed_words, words_of

_TITLES_TEXT = """
president king queen prince princess author actor actress singer writer poet mayor pope saint director company city
country film movie song album book novel player footballer
"""
_TITLES = frozenset(_TITLES_TEXT.split())
"""Begin a sentence before a name, but are seldom a part of it."""
_ARTICLES = frozenset(("the", "a", "an"))
_LATER_TEXT = "today currently presently nowadays yet still anyway please ever originally initially once"
_LATER = frozenset(_LATER_TEXT.split())
"""After a name, but no part of it."""
_TENSES = dict(zip(words_of("was were did"), words_of("is are does"), strict=True))
_AUXILIARY = frozenset(words_of("do does did will can could would should may must"))
_BEFORE = frozenset(("of", "for", "by", "about"))
"""Stand before a name, but before no sentence."""
MOST_BEHIND = 3
MOST_WORDS = 10
_APART = re.compile(r"[?!:;\n]|,(?!\s*[A-Z0-9])")


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
        """As the question writes it; None for what is no phrasing word for word, or has more in the place of a name."""
        placed = placed_words(question)
        words = [word for word, _ in placed]
        found = self._around(_timeless(words)) or self._at_its_end(words, [match[0] for _, match in placed])
        if found is None:
            return None
        before, after = found
        inside = placed[before : len(placed) - after]
        if inside[0][0] in _ARTICLES and (not before or inside[0][1][0].islower()):
            inside = inside[1:]
        if inside and not before and inside[0][0] in _TITLES:
            inside = inside[1:]
        if not inside or len(inside) > MOST_WORDS:
            return None
        begin, end = inside[0][1].start(), inside[-1][1].end()
        name = question[begin:end]
        if _APART.search(name) or not self._is_name(name, [(word, match[0]) for word, match in inside], sum(found)):
            return None
        return name + ")" if "(" in name and question[end : end + 1] == ")" else name

    def _around(self, words: tuple[str, ...]) -> tuple[int, int] | None:
        """How many words before and after the slot, of the phrasing that leaves the least in it."""
        fits = [
            (before, after)
            for before in range(min(self._most_before, len(words) - 1) + 1)
            if (ends := self._after.get(words[:before]))
            for after in range(min(self._most_after, len(words) - before - 1) + 1)
            if words[len(words) - after :] in ends
        ]
        return max(fits, key=sum, default=None)

    def _at_its_end(self, words: Sequence[str], written: Sequence[str]) -> tuple[int, int] | None:
        """The same of any question that ends with a name that goes on in lower case, as `... of Guinea baboon?`, and
        where what follows it can be no verb."""
        last = max((at for at, word in enumerate(written) if not word.islower()), default=0)
        if not 0 < len(words) - 1 - last <= MOST_BEHIND or not _AUXILIARY.isdisjoint(words):
            return None
        first = last
        while first and (not written[first - 1].islower() or words[first - 1] in JOINER - {"of"}):
            first -= 1
        return (first, 0) if first and words[first - 1] in _BEFORE else None

    def _is_name(self, name: str, words: Sequence[tuple[str, str]], around: int) -> bool:
        """Begins with a capital, or a number before one; in lower case are small words between capitals, and words at
        its end that no generic phrasing has. Of what is somebody's no more is a name than that."""
        capital = [at for at, (_, written) in enumerate(words) if written[0].isupper() or not written.islower()]
        if not capital or self._no_name.issuperset(word for word, _ in words):
            return False
        if any(not written[0].isdigit() for _, written in words[: capital[0]]):
            return False
        within, behind = words[capital[0] : capital[-1]], words[capital[-1] + 1 :]
        if any(written.islower() and written[0].isalpha() and word not in JOINER for word, written in within):
            return False
        if not behind:
            return True
        # of one word around it, what follows a name may as well be a verb
        return around > 1 and not POSSESSIVE.search(name) and not any(word in self._no_name for word, _ in behind)


def _timeless(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(_TENSES.get(word, word) for word in words)
