"""Two phrases in each other's place: "Can a tenant sue a landlord?" and "Can a landlord sue a tenant?" have the same
words, which an encoder hardly tells apart."""

from collections.abc import Sequence
from itertools import combinations

from app.domain.words import Span
from app.scope.closed_words import ClosedWords, LanguageGrammar

Swap = tuple[Span, Span]
LONGEST = 40
"""The most words in which phrases are looked for: the time grows with their third power."""


def swapped(question: Sequence[str], key: Sequence[str], names: Sequence[Span], closed: ClosedWords) -> Swap | None:
    """The two phrases that have changed places from one text to the other, both as folded words; None if there are
    none. The key's `names` are also found where the texts differ in other words."""
    return _phrases(question, key, closed.grammar(key)) or _names(question, key, names, closed)


def _phrases(question: Sequence[str], key: Sequence[str], grammar: LanguageGrammar) -> Swap | None:
    """The phrases X and Y if the texts are otherwise the same sentence: the question says X M Y where the key says Y M
    X. Without a small word before them, they are keywords, whose order says nothing."""
    one, other = ([grammar.variants.get(word, word) for word in words] for words in (question, key))
    if len(one) != len(other) or one == other or sorted(one) != sorted(other):
        return None
    unequal = [at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    before = one[: unequal[0]]
    one, other = (words[unequal[0] : unequal[-1] + 1] for words in (one, other))
    size = len(one)
    if size > LONGEST or not any(map(grammar.is_small, before)):
        return None
    for first in range(1, size):
        for last in range(1, size - first):
            x, between, y = one[:first], one[first : size - last], one[size - last :]
            if other == [*y, *between, *x] and _is_phrase(x, grammar) and _is_phrase(y, grammar):
                return (tuple(x), tuple(y)) if _ordered(before[-1], between, grammar) else None
    return None


def _is_phrase(words: Sequence[str], grammar: LanguageGrammar) -> bool:
    """True if the words may be a noun phrase: they neither begin nor end with a small word."""
    return not (grammar.is_small(words[0]) or grammar.is_small(words[-1]))


def _ordered(before: str, between: Sequence[str], grammar: LanguageGrammar) -> bool:
    """True if the phrases after `before` and after `between` cannot change places. "A and B", "A is the B" and "in A in
    B" say the same the other way round."""
    if any(map(grammar.is_joining, between)):
        return False
    if not all(map(grammar.is_small, between)):
        return True
    if all(grammar.is_auxiliary(word) or word in grammar.articles for word in between):
        return False
    return grammar.is_small(before) and before != between[-1]


def _names(question: Sequence[str], key: Sequence[str], names: Sequence[Span], closed: ClosedWords) -> Swap | None:
    """The names that stand after each other's small words: "from Ulm to Bonn" and "from Bonn to Ulm"; "to Bonn from
    Ulm" says the same as the first."""
    apart = dict.fromkeys(part for span in names for part in _parted(span, closed))
    places = {span: (_place(question, span), _place(key, span)) for span in apart}
    shared = [span for span, (mine, theirs) in places.items() if mine is not None and theirs is not None]
    for one, other in combinations(shared, 2):
        mine, theirs = (
            [_small_before(words, places[span][side], closed) for span in (one, other)]
            for side, words in enumerate((question, key))
        )
        joined = any(word in closed.joining for word in mine)  # "between Ulm and Bonn" may be said either way round
        if all(mine) and not joined and mine[0] != mine[1] and mine == theirs[::-1]:
            return one, other
    return None


def _parted(span: Span, closed: ClosedWords) -> list[Span]:
    """A name, split at its small words: "Ulm to Bonn" may be two names."""
    parts: list[list[str]] = [[]]
    for word in span:
        if word in closed.small:
            parts.append([])
        else:
            parts[-1].append(word)
    return [tuple(part) for part in parts if part]


def _place(words: Sequence[str], name: Span) -> int | None:
    """The first position of a name."""
    starts = range(len(words) - len(name) + 1)
    return next((at for at in starts if tuple(words[at : at + len(name)]) == name), None)


def _small_before(words: Sequence[str], at: int | None, closed: ClosedWords) -> str:
    return words[at - 1] if at and words[at - 1] in closed.small else ""
