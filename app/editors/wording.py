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

from app.editors.scope import COMMON, Heard, Span, Who, names_in, words_of
from app.editors.synonyms import Synonyms, load_synonyms, stem_of
from app.editors.thesaurus import Thesaurus

NOBODY = Who(())
_NO_GROUPS: frozenset[int] = frozenset()
_WORDS = "|"
"""Before a line's words: without it they are stems."""
_CUT_OFF = "-"
"""After a stem: no word, and of the same stem."""
ALMOST = 0.85
"""What a word is worth beside one that means the same, of what it is worth beside itself."""
LIGHT = 0.25
"""What a word that says little is worth."""
TELLING = 0.45
"""Of the weight of a word that no generic phrasing has: from here on a word says something."""
_CONTRASTS = frozenset(load_synonyms().contrasts)
"""Common words among them that tell questions apart."""
STRANGE = 0.5
"""Of the words before a subject: where so many are of no question, they are not of this one."""
_KNOWN = load_synonyms().words
_ASKING = frozenset(("what", "which", "who", "whom", "whose", "when", "where", "why", "how"))
_EMPTY_TEXT = "a an the is are was were be been do does did has have had question answer q"
_EMPTY = frozenset(_EMPTY_TEXT.split())
SENTENCE = re.compile(r"(?<=[.?!])(?<!\b[A-Z]\.)(?<!\b[DMSJ]r\.)(?<!\bMrs\.)(?<!\b[MS][st]\.)(?<!\b[vV]s\.)\s+")
"""Between two sentences; initials and titles end none."""
_TIMES = r"(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?)"
_ASKS = re.compile(r"\W*(?:\w+ ){0,2}(?:what|which|who|whom|whose|when|where|why|how)\b")
"""A sentence that begins by asking."""
_ASKED = {
    "when": re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|time|stage|point))\b"),
    "where": re.compile(r"\b(?:where|(?:what|which) (?:city|town|place|location|country|state|continent|region))\b"),
    "who": re.compile(r"\b(?:who|whom|whose|(?:what|which) (?:person|man|woman))\b"),
    "how many": re.compile(
        rf"\b(?:how (?:many|much)(?! {_TIMES}\b)|what(?:'s| is| was) the (?:total |exact )?(?:number|count|amount))\b"
    ),
    "how long": re.compile(rf"\b(?:how (?:long|old|soon|late|early)|how many {_TIMES}|the duration)\b"),
    "how big": re.compile(r"\bhow (?:tall|high|far|big|large|deep|heavy|wide)\b"),
    "how": re.compile(r"\bhow (?:do|does|did|can|could|should|would|to|is|are|was|were)\b"),
    "why": re.compile(r"\bwhy\b|\b(?:what|which) (?:is|was|are|were) the (?:reason|motive|rationale)s?\b"),
}
_THING = re.compile(r"\b(?:what|which)\b")
_DATED_OR_COUNTED = re.compile(
    r"\b(?:year|date|day|month|time|number|count|total|amount|birthday"
    r"|height|depth|width|weight|length|distance|size|speed|age|altitude|elevation)\b"
)
_ASIDE = re.compile(r",\s*(?:when|where)\b")
"""After a word that asks: it only begins a clause."""
THING = "what"
"""Asked for where a question asks for none of the kinds; whom and where may be asked in such words too."""
_VAGUE = frozenset((THING, "how"))
_DEFINITE = frozenset(("when", "how many", "how long", "how big", "why"))


@dataclass(frozen=True, slots=True)
class Wording:
    """The words that are neither common nor the subject's, compared by their stems, and what kind of thing is asked
    for, if that is said. A stem is a word too: it is its own."""

    words: frozenset[str]
    asked: str | None = None
    stems: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stems", frozenset(map(stem_of, self.words)))

    def differs(self, other: "Wording") -> bool:
        """Whether they ask for things of other kinds, as when and where."""
        if self.asked is None or other.asked is None or self.asked == other.asked:
            return False
        kinds = {self.asked, other.asked} - _VAGUE
        return len(kinds) > 1 or not kinds.isdisjoint(_DEFINITE)

    def adds(self, other: "Wording", words: int) -> bool:
        """Whether it says all that the other says, and so many words more."""
        return other.stems <= self.stems and len(self.stems - other.stems) >= words

    def besides(self, other: "Wording") -> frozenset[str]:
        """Words of its own, whose stems the other has not."""
        return frozenset(word for word in self.words if stem_of(word) not in other.stems)

    def without(self, stems: frozenset[str]) -> "Wording":
        return Wording(frozenset(word for word in self.words if stem_of(word) not in stems), self.asked)

    def written(self) -> str:
        """As one line: many are kept."""
        return f"{self.asked or ''}|{_WORDS}{' '.join(sorted(self.words))}"


@lru_cache(maxsize=1 << 15)
def read_wording(line: str) -> Wording:
    """What `written` wrote, now or when it wrote stems: of these a whole one may be a word that was cut off."""
    asked, _, rest = line.partition("|")
    words = rest.removeprefix(_WORDS).split()
    if not rest.startswith(_WORDS):
        words = [f"{word}{_CUT_OFF}" if stem_of(f"{word}{_CUT_OFF}") == word else word for word in words]
    return Wording(frozenset(words), asked or None)


def wording_of(text: str, who: Who) -> Wording:
    """From the last sentence on that names the subject: what stands before it may be about anything. Nothing, if
    somebody else is named after it: then it is about them. Words that are no names say what is asked, and stay."""
    if not who.named:
        who = NOBODY
    sentences = SENTENCE.split(text)
    at = max((at for at, each in enumerate(sentences) if _named(words_of(each), who)), default=0)
    if any(names_in(later) for later in sentences[at + 1 :]):
        return Wording(frozenset())
    return _read(_from_where_it_begins(" ".join(sentences[at:]), who), who)


def _from_where_it_begins(sentence: str, who: Who) -> str:
    """Without what stands before the subject and asks nothing: a heading, or the end of a text that was cut off."""
    words = words_of(sentence)
    before = next(
        (words[:at] for at in range(len(words)) for span in _spans(who) if tuple(words[at : at + len(span)]) == span),
        [],
    )
    telling = [word for word in before if word not in COMMON]
    strange = [word for word in telling if word not in _KNOWN]
    if len(strange) < 2 or telling[-1] != before[-1] or strange[-1] != telling[-1]:
        return sentence
    if len(strange) < STRANGE * len(telling) or not _ASKING.isdisjoint(before):
        return sentence
    return " ".join(words[len(before) :])


STAND_IN = "xyzzy"
"""For a name, where a question is compared word for word."""


def frame_of(text: str, who: Who) -> Wording:
    """The same without the words that say about whom or what, names or not."""
    return wording_of(text, who if who.named else Who(who.alternatives))


def whole_of(text: str) -> Wording:
    """Of all its words, names and everything."""
    return _read(text, NOBODY)


def _read(sentence: str, who: Who) -> Wording:
    left = _without(words_of(sentence), who)
    said = [word for word in left if word not in COMMON or word in _CONTRASTS]
    words = frozenset(word for word in said if len(word) > 1 or word.isdigit())
    if all(word in COMMON for word in said):
        words |= {word for word in left if word in COMMON and word not in _EMPTY}
    lower = _asking_part(sentence.casefold())
    kinds = [kind for kind, pattern in _ASKED.items() if pattern.search(lower)]
    if not kinds and _THING.search(lower) and not _DATED_OR_COUNTED.search(lower):
        kinds = [THING]
    return Wording(words, kinds[0] if len(kinds) == 1 else None)


def _asking_part(sentence: str) -> str:
    """Without the words that only look as if they asked: what was said, when he left."""
    first = _ASKS.match(sentence)
    return sentence if first is None else first[0] + _ASIDE.sub("", sentence[first.end() :])


def _spans(who: Who) -> list[Span]:
    return sorted({span for spans in who.alternatives for span in spans}, key=len, reverse=True)


def _named(words: Sequence[str], who: Who) -> bool:
    heard = Heard(words)
    return any(heard.says(span) for span in _spans(who))


def _without(words: list[str], who: Who) -> list[str]:
    heard = Heard(words)
    text = heard.text
    for span in _spans(who):
        text = text.replace(f" {' '.join(span)} ", "  ")
        if (at := heard.misspelt(span)) is not None:
            text = text.replace(f" {' '.join(words[at : at + len(span)])} ", "  ")
    return text.split()


class Likeness:
    """Compares wordings; a word counts by how rare it is in `phrasings`, generic ones, and nearly as much beside one
    that means the same."""

    def __init__(
        self,
        phrasings: Iterable[str],
        synonyms: Synonyms | None = None,
        thesaurus: Thesaurus | None = None,
    ) -> None:
        self._synonyms = synonyms or Synonyms()
        self._thesaurus = thesaurus or Thesaurus({}, {})
        seen: Counter[str] = Counter()
        count = 0
        for count, phrasing in enumerate(phrasings, 1):  # noqa: B007
            seen.update({stem_of(word) for word in words_of(phrasing)})
        self._most = math.log(count + 2)
        self._little = little = {*self._synonyms.light, *COMMON}
        self._weight = {
            stem: (self._most - math.log(seen[stem] + 1)) * (LIGHT if stem in little else 1.0)
            for stem in {*seen, *little}
        }

    def of(self, a: Wording, b: Wording) -> float:
        """The share of their words, by weight, that both have: 0 to 1; 0 where they ask for different things."""
        if self.apart(a, b):
            return 0.0
        shared = self.weight(a.stems & b.stems)
        only_a, only_b = a.stems - b.stems, b.stems - a.stems
        meant = (self.weight(self._meant(a, b)) + self.weight(self._meant(b, a))) / 2
        either = shared + self.weight(only_a) + self.weight(only_b) - meant
        return (shared + ALMOST * meant) / either if either else 0.0

    def apart(self, a: Wording, b: Wording) -> bool:
        """Whether they ask for things of other kinds, or one for what stands against what the other asks for."""
        return a.differs(b) or self.contrary(a, b)

    def contrary(self, a: Wording, b: Wording) -> bool:
        return self._synonyms.contrary(a.stems, b.stems)

    def knows(self, stem: str) -> bool:
        return stem in self._weight

    def telling(self, a: Wording, b: Wording, besides: frozenset[str]) -> int:
        """How many words that say something, other than these, the one shares with the other, or has instead of one
        that means the same."""
        shared = (a.stems & b.stems) - besides
        found = [*shared, *self._meant(a, b)]
        return sum(self.weight((stem,)) >= TELLING * self._most for stem in found)

    def swapped(self, a: Wording, b: Wording) -> bool:
        """Whether each has a word of its own that no generic phrasing has: cancel here, and there upgrade."""
        return all(
            any(not self.knows(stem) for stem in own.stems - other.stems - self._meant(own, other))
            for own, other in ((a, b), (b, a))
        )

    def exchanged(self, a: Wording, b: Wording) -> bool:
        """Whether each has a word of its own that generic phrasings have and that says something: directed here, and
        there composed."""
        return all(
            any(
                self.knows(stem) and stem not in self._little
                for stem in own.stems - other.stems - self._meant(own, other)
            )
            for own, other in ((a, b), (b, a))
        )

    def weight(self, stems: Iterable[str]) -> float:
        return sum(self._weight.get(stem, self._most) for stem in stems)

    def _meant(self, a: Wording, b: Wording) -> frozenset[str]:
        """Stems that only the first has and that mean the same as one of the second's."""
        groups = self._synonyms.groups
        theirs = self._synonyms.groups_of(b.stems)
        return frozenset(
            stem
            for word in a.besides(b)
            if not groups.get(stem := stem_of(word), _NO_GROUPS).isdisjoint(theirs) or self._means_one_of(word, b)
        )

    def _means_one_of(self, word: str, other: Wording) -> bool:
        """Whether the thesaurus has it beside one of the other's. Of two that generic phrasings have, the synonyms are
        all that is believed: a word of many meanings has one there."""
        stem = stem_of(word)
        return any(
            not (self.knows(stem) and self.knows(each))
            and not self._synonyms.contrary(frozenset((stem,)), frozenset((each,)))
            for each in map(stem_of, self._thesaurus.beside(word, other.words))
        )


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What is known of words: those of generic phrasings, which say what is asked and not about whom, how much each
    counts, and what they ask for together."""

    template_words: frozenset[str] = frozenset()
    likeness: Likeness = field(default_factory=lambda: Likeness(()))
    meaning: Likeness = field(default_factory=lambda: Likeness(()))
    """The same with a thesaurus, for questions of many words: of a few, one that may mean the same is not enough."""
    relations: Callable[[Wording], frozenset[str]] = lambda _: frozenset()
    """What of the things that people commonly ask for may be asked for: several where the words do not say which."""
    word_for_word: Callable[[str], frozenset[str]] = lambda _: frozenset()
    """What a question that people commonly ask asks for, a stand-in for its subject: nothing, for any other text."""
    kin: Callable[[frozenset[str], frozenset[str]], bool] = lambda _a, _b: False
    """Whether two such sets are near enough that the words cannot tell."""
