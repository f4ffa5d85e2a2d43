"""What a question asks, read from its words with its subject left out: for models that know little of the matter.

Where the activations tell apart two ways of asking that hold nearly the same words, the words are right. Knows no
model.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from app.editors.scope import COMMON, Span, Who, names_in, words_of

NOBODY = Who(())
STEM_CHARS = 5
"""Of a word that count: `broadcasts`, `broadcasted` and `broadcaster` are the same here."""
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_ASKED = {
    "when": re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|time))\b"),
    "where": re.compile(r"\b(?:where|(?:what|which) (?:city|town|place|location|country|state|continent|region))\b"),
    "who": re.compile(r"\b(?:who|whom|whose|(?:what|which) (?:person|man|woman))\b"),
    "how many": re.compile(r"\bhow (?:many|much)\b"),
    "how long": re.compile(r"\bhow (?:long|old|soon|late|early)\b"),
    "how big": re.compile(r"\bhow (?:tall|high|far|big|large|deep|heavy|wide)\b"),
    "why": re.compile(r"\bwhy\b"),
}


@dataclass(frozen=True, slots=True)
class Wording:
    """Stems of the words that are neither common nor the subject's, and what kind of thing is asked for, if that is
    said."""

    stems: frozenset[str]
    asked: str | None = None

    def differs(self, other: "Wording") -> bool:
        """Whether they ask for things of other kinds, as when and where."""
        return self.asked is not None and other.asked is not None and self.asked != other.asked

    def written(self) -> str:
        """As one line: many are kept."""
        return f"{self.asked or ''}|{' '.join(sorted(self.stems))}"


@lru_cache(maxsize=1 << 15)
def read_wording(line: str) -> Wording:
    """What `written` wrote."""
    asked, _, stems = line.partition("|")
    return Wording(frozenset(stems.split()), asked or None)


def wording_of(text: str, who: Who) -> Wording:
    """From the last sentence on that names the subject: what stands before it may be about anything. Nothing, if
    somebody else is named after it: then it is about them. Words that are no names say what is asked, and stay."""
    if not who.named:
        who = NOBODY
    sentences = _SENTENCE.split(text)
    at = max((at for at, each in enumerate(sentences) if _named(words_of(each), who)), default=0)
    if any(names_in(later) for later in sentences[at + 1 :]):
        return Wording(frozenset())
    sentence = " ".join(sentences[at:])
    left = _without(words_of(sentence), who)
    stems = frozenset(word[:STEM_CHARS] for word in left if word not in COMMON and len(word) > 1)
    lower = sentence.casefold()
    kinds = [kind for kind, pattern in _ASKED.items() if pattern.search(lower)]
    return Wording(stems, kinds[0] if len(kinds) == 1 else None)


def _spans(who: Who) -> list[Span]:
    return sorted({span for spans in who.alternatives for span in spans}, key=len, reverse=True)


def _named(words: Sequence[str], who: Who) -> bool:
    text = f" {' '.join(words)} "
    return any(f" {' '.join(span)} " in text for span in _spans(who))


def _without(words: list[str], who: Who) -> list[str]:
    text = f" {' '.join(words)} "
    for span in _spans(who):
        text = text.replace(f" {' '.join(span)} ", "  ")
    return text.split()


class Likeness:
    """Compares wordings; a word counts by how rare it is in `phrasings`, generic ones."""

    def __init__(self, phrasings: Iterable[str]) -> None:
        seen: Counter[str] = Counter()
        count = 0
        for count, phrasing in enumerate(phrasings, 1):  # noqa: B007
            seen.update({word[:STEM_CHARS] for word in words_of(phrasing)})
        self._most = math.log(count + 2)
        self._weight = {stem: self._most - math.log(n + 1) for stem, n in seen.items()}

    def of(self, a: Wording, b: Wording) -> float:
        """The share of their words, by weight, that both have: 0 to 1; 0 where they ask for things of other kinds."""
        if a.differs(b):
            return 0.0
        both, either = self._sum(a.stems & b.stems), self._sum(a.stems | b.stems)
        return both / either if either else 0.0

    def _sum(self, stems: Iterable[str]) -> float:
        return sum(self._weight.get(stem, self._most) for stem in stems)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What is known of words: those of generic phrasings, which say what is asked and not about whom, how much each
    counts, and what they ask for together."""

    template_words: frozenset[str] = frozenset()
    likeness: Likeness = field(default_factory=lambda: Likeness(()))
    relation: Callable[[Wording], str | None] = lambda _: None
    """What of the things that people commonly ask for is asked for, if it is one of them."""
