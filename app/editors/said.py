"""How an edit's question is put in words, and how near that brings a prompt to it.

Words decide beside activations: the same words, or others that are known to ask for the same, suffice; words that are
known to ask for something else move a prompt farther off, and those of what stands against it keep it out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from app.editors.frames import core_of
from app.editors.scope import COMMON, Who, names_in, words_of
from app.editors.synonyms import stem_of
from app.editors.wording import STAND_IN, Lexicon, Likeness, Wording, frame_of, read_wording, whole_of, wording_of

ALIKE, ALIKE_UNNAMED = 0.55, 0.7
"""Of its words that a prompt shares with one of the edit's: from here on it asks the same, whatever the distance. More
where nobody is named, for then all of a question's words are what it asks."""
VERY = 0.9
"""So alike are words that ask the same, whatever else they may ask."""
UNSURE = 0.5
"""For words that ask for one of several things that the edit's words may ask for."""
OTHER, NEVER = -0.2, -10.0
"""For words that are known to ask for something else; for those that ask for what stands against it."""
NEARER = 0.5
"""Radii that a prompt with the very same words lies nearer."""
DEEPER = 0.1
"""Of the radius, for all the words: of two edits whose words are both enough, the more alike is to answer."""
FAR = 1.8
"""Radii beyond which a long question is not the same one, however much of it is."""
OUTSIDE = 1.01
"""Of the radius, besides the distance: out of scope, however near."""
LONG = ((3, 0.5, 0.4), (4, 0.6, 0.25), (6, 0.65, 0.0))
"""Of a question about someone named that says more than who and what: so many words beside the name that both have, so
much of all its words, and of those without names. By many a question is known even where not all its names are said."""
LONG_UNNAMED = ((3, 0.65, 0.2), (4, 0.6, 0.2), (4, 0.65, 0.0), (5, 0.5, 0.2))
LONG_ALIKE, LONG_WHOLE = (4, 0.5), (3, 0.55)
"""So many words and so much of all suffice where not each of the two asks for something that the other does not; and
where, besides, all is said that says about whom or what."""
MORE = 4
"""Words that a text has beyond all of another's: it goes on, as the next sentence of a passage does, and asks for what
comes then."""
PARTLY = 0.5
"""Of the names of a question that is known by its many words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a text asks of someone: in its words, in those that are left when the words that say about whom or what are
    taken out, names or not, in all, names as well, and word for word."""

    wording: Wording
    frame: Wording
    whole: Wording
    names: frozenset[str]
    """Stems of the words of everyone that it calls by name."""
    core: str


def asked_of(text: str, who: Who) -> Asked:
    return Asked(wording_of(text, who), frame_of(text, who), *_all_of(text), core_of(text, who))


@lru_cache(maxsize=256)  # for each subject that a prompt mentions
def _all_of(text: str) -> tuple[Wording, frozenset[str]]:
    words = (word for name in names_in(text) for word in name if word not in COMMON)
    return whole_of(text), frozenset(stem_of(word) for word in words if len(word) > 1)


@dataclass(frozen=True, slots=True)
class Near:
    """How alike a prompt's words are, and how deep it lies: in scope up to 1."""

    alike: float
    depth: float


@dataclass(frozen=True, slots=True)
class Said:
    """An edit's wordings, its prompt's and its paraphrases', as lines; its counter-examples'; and what they ask for, if
    it is something that people commonly ask. `wholes` are those of its prompt and of the paraphrases that it was
    given."""

    who: Who
    wordings: tuple[str, ...]
    unlike: tuple[str, ...]
    relations: frozenset[str]
    wholes: tuple[str, ...] = ()

    @property
    def bound(self) -> float:
        return ALIKE if self._named else ALIKE_UNNAMED

    @property
    def _named(self) -> bool:
        return self.who.named and bool(self.who.alternatives)

    def alike(self, asked: Asked, lexicon: Lexicon) -> float:
        """The largest share of words with one of its own, 0 if a counter-example has as many; 1 for other words that
        are known to ask for the same, OTHER for words that may be known to ask for something else, NEVER for those
        that surely do: what stands against it, or word for word another question that people commonly ask."""
        if not self.wordings:
            return 0.0
        mine = [read_wording(line) for line in self.wordings]
        if all(lexicon.likeness.contrary(asked.wording, each) for each in mine):
            return NEVER
        if not self._named and all(asked.wording.differs(each) for each in mine):
            return NEVER
        if self._as_its_counter_examples(asked, lexicon):
            return 0.0
        own = _most(asked.wording, mine, lexicon.likeness)
        if own >= VERY:
            return own
        if own < self.bound and (rest := _rest_of_name(asked, lexicon)):
            # the rest of a name that capitals show a part of says whom it is about, and nothing of what is asked
            own = min(own, _most(asked.wording.without(rest), [each.without(rest) for each in mine], lexicon.likeness))
        # of an edit whose words may ask for several things it is not sure that it does not ask for this one
        surely = lexicon.word_for_word(asked.core) if len(self.relations) == 1 else frozenset()
        if surely and surely.isdisjoint(self.relations) and not lexicon.kin(surely, self.relations):
            return NEVER
        return self._known(asked.frame, lexicon, own)

    def _as_its_counter_examples(self, asked: Asked, lexicon: Lexicon) -> bool:
        own, counter = (
            _most(asked.wording, [read_wording(line) for line in lines], lexicon.likeness)
            for lines in (self.wordings, self.unlike)
        )
        return counter > 0 and counter >= own

    def _known(self, frame: Wording, lexicon: Lexicon, otherwise: float) -> float:
        theirs = lexicon.relations(frame) if self.relations else frozenset()
        if not theirs:
            return otherwise
        if theirs.isdisjoint(self.relations):
            return otherwise if lexicon.kin(theirs, self.relations) else OTHER
        return 1.0 if len(self.relations) == 1 or theirs == self.relations else max(otherwise, UNSURE)

    def same(self, asked: Asked, share: float, alike: float, lexicon: Lexicon) -> bool:
        """Whether so much of a long question is one of its own that it can hardly ask something else. Nobody may be
        named in it whom the edit's does not name."""
        if alike <= OTHER or self._as_its_counter_examples(asked, lexicon):
            return False
        return any(self._same(asked, read_wording(line), share, lexicon) for line in self.wholes)

    def _same(self, asked: Asked, whole: Wording, share: float, lexicon: Lexicon) -> bool:
        words = lexicon.meaning
        if any(not words.knows(stem) for stem in asked.names - whole.stems - self._stems()):
            return False
        count = words.telling(asked.whole, whole, besides=self._longest())
        of_all = words.of(asked.whole, whole)
        if asked.whole.adds(whole, MORE) or whole.adds(asked.whole, MORE):
            return False
        least = (LONG_ALIKE, LONG_WHOLE) if share >= 1 else (LONG_ALIKE,)
        enough = any(count >= n and of_all >= a for n, a in least) and not words.exchanged(asked.whole, whole)
        if self._named:
            rest = _most(asked.frame, [read_wording(line) for line in self.wordings], words)
            # of what is asked something must be shared: names of many words are not all that a question is
            if not rest:
                return False
            return enough or any(count >= n and of_all >= a and rest >= r and (share >= 1 or not r) for n, a, r in LONG)
        rest = words.of(asked.frame, self._framed(whole.written()))
        if not rest and words.swapped(asked.whole, whole):
            return False
        return enough or any(count >= n and of_all >= a and rest >= r for n, a, r in LONG_UNNAMED)

    def near(
        self, asked: Asked | None, distance: float, radius: float, share: float, lexicon: Lexicon, learned: float = 0.0
    ) -> Near:
        """Where a prompt lies that says this share of its names; `asked` is None where its words are not read, and
        `learned` the radius without rivals, if it is larger."""
        alike = 0.0 if asked is None else self.alike(asked, lexicon)
        named = share >= self.who.bound
        unsure = asked is not None and (alike < self.bound or not named) and distance <= FAR * max(radius, learned)
        if asked is not None and unsure and self.same(asked, share, alike, lexicon):
            alike, named = self.bound, True
        if not named:
            return Near(0.0, OUTSIDE + depth_of(distance, radius, 0.0, self.bound))
        if asked is not None and not self._named and 0.0 < alike < self.bound:
            # of words that are no names those that say about what are shared by all that is asked about it
            alike = min(alike, _most(asked.frame, [self._framed(line) for line in self.wordings], lexicon.likeness))
        return Near(alike, depth_of(distance, radius, alike, self.bound))

    def told(self, words: Iterable[str]) -> bool:
        """Whether its prompt, or a paraphrase that it was given, says all of these, but for common ones."""
        telling = {stem_of(word) for word in words if word not in COMMON and (len(word) > 1 or word.isdigit())}
        return not telling or any(telling <= read_wording(line).stems for line in self.wholes)

    def _framed(self, line: str) -> Wording:
        return read_wording(line).without(self._stems())

    def _stems(self) -> frozenset[str]:
        return frozenset(stem_of(word) for spans in self.who.alternatives for span in spans for word in span)

    def _longest(self) -> frozenset[str]:
        if not self._named:
            return frozenset()
        return frozenset(stem_of(word) for word in max(self.who.alternatives[0], key=len))


def said_of(
    texts: Sequence[str], made: Sequence[str], unlike: Sequence[str], who: Who, lexicon: Lexicon
) -> dict[str, list[str]]:
    """What is stored of it: the lines of the wordings, and the relations that its prompt, the first text, asks for."""
    return {
        "wordings": _written(wording_of(text, who) for text in (*texts, *made)),
        "unlike": _written(wording_of(text, who) for text in unlike),
        "wholes": _written(whole_of(text) for text in texts),
        "relations": sorted(_relations(texts[0], who, lexicon) if _one_name(texts[0], who) else ()),
    }


def _relations(text: str, who: Who, lexicon: Lexicon) -> frozenset[str]:
    """Of a question that people commonly ask that one, though others may be asked in like words."""
    return lexicon.word_for_word(core_of(text, who)) or lexicon.relations(frame_of(text, who))


def said_in(who: Who, lines: Mapping[str, Sequence[str]]) -> Said:
    """Of what was stored."""
    wordings, unlike, relations, wholes = (tuple(lines[name]) for name in ("wordings", "unlike", "relations", "wholes"))
    return Said(who, wordings, unlike, frozenset(relations), wholes)


def _one_name(text: str, who: Who) -> bool:
    """Whether it can be about someone or something: names are; of other words, those that stand side by side."""
    if who.named:
        return True
    words = " ".join(words_of(text))
    return any(" ".join(word for span in spans for word in span) in words for spans in who.alternatives)


def depth_of(distance: float, radius: float, alike: float, enough: float) -> float:
    """Of the radius, in scope up to 1; of a radius of nothing, only its own key lies inside. Alike words bring a prompt
    nearer, and so many are enough: the more alike, the deeper."""
    depth = distance / radius if radius > 0 else (0.0 if distance == 0 else float("inf"))
    depth = max(0.0, depth - NEARER * alike)
    return min(depth, 1.0 - DEEPER * (alike - enough)) if alike >= enough else depth


def _rest_of_name(asked: Asked, lexicon: Lexicon) -> frozenset[str]:
    """Stems of the words beside a name that no generic phrasing has."""
    words = asked.core.split()
    found: set[str] = set()
    for at in (at for at, word in enumerate(words) if word == STAND_IN):
        for beside in (range(at + 1, len(words)), range(at - 1, -1, -1)):
            told = takewhile(lambda word: word != STAND_IN, (words[n] for n in beside))
            found.update(takewhile(lambda stem: not lexicon.likeness.knows(stem), map(stem_of, told)))
    return frozenset(found)


def _most(asked: Wording, wordings: Sequence[Wording], likeness: Likeness) -> float:
    return max((likeness.of(asked, each) for each in wordings), default=0.0)


def _written(wordings: Iterable[Wording]) -> list[str]:
    return list(dict.fromkeys(wording.written() for wording in wordings if wording.stems))
