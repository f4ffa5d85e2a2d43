"""Ways of asking for what people commonly ask: paraphrases that the server makes, of prompts that it recognises.

A phrasing is a question, or the beginning of a sentence that the answer completes, with {} for the subject. What is
recognised asks for one relation only. English; other languages and other questions have no phrasings, and lose nothing.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from app.editors.frames import Frame, framed
from app.editors.scope import find_who, surface, words_of
from app.editors.slots import Slots
from app.editors.synonyms import load_synonyms
from app.editors.thesaurus import load_thesaurus
from app.editors.wording import STAND_IN, THING, Lexicon, Likeness, Wording, frame_of, wording_of

FILE = "phrasebook_v1.tsv"
MOST, MOST_ALIKE = 6, 4
"""Paraphrases that are made of a prompt, and those of them that are put as it is: as a question, or as a sentence."""
ALIKE = 0.75
"""Of the words of a prompt and of a phrasing, from which on they ask the same."""
MOST_STEMS = 32
"""That a question of what people commonly ask may have: a long text is none, and is not compared."""
TIED = 0.02
"""Between two that are as much alike as the other."""
KIN = (
    frozenset(("country", "country_of_origin")),
    frozenset(("location_city", "formation_location")),
    frozenset(("manufacturer", "developer", "creator", "distributor")),
    frozenset(("inception", "start_date", "service_entry")),
    frozenset(("dissolution", "end_date")),
    frozenset(("occupation", "field_of_work")),
    frozenset(("leader", "president", "chief_executive", "head_of_government")),
    frozenset(("demonym", "citizenship")),
    frozenset(("designer", "developer", "creator")),
    frozenset(("native_language", "language_spoken")),
    frozenset(("award", "recipient")),
    frozenset(("cast", "role_played_by")),
)
"""Relations that the same words may ask for, or whose answers often are the same: of these the words alone do not say
that something else is asked."""
_NOUN = re.compile(r"The (.+) of \{\} (?:is|was)$")


@dataclass(frozen=True, slots=True)
class Recognised:
    """A prompt that is known to ask for a relation of `name`, in its frame."""

    relation: str
    name: str
    frame: Frame

    def put(self, phrasing: str) -> str:
        """Asked in other words, {} for the name; the beginning of a sentence has no frame."""
        text = phrasing.replace("{}", self.name)
        return self.frame.put(text) if text.endswith("?") else text


class Phrasebook:
    """Relation -> phrasings."""

    def __init__(self, phrasings: Mapping[str, Sequence[str]]) -> None:
        self._phrasings = phrasings
        texts = [text.replace("{}", "") for texts in phrasings.values() for text in texts]
        words = frozenset(word for text in texts for word in words_of(text))
        likeness, meaning = Likeness(texts, load_synonyms()), Likeness(texts, load_synonyms(), load_thesaurus())
        self.lexicon = Lexicon(words, likeness, meaning, self.relations, self._asked_word_for_word, kin)
        self._slots = Slots((text for texts in phrasings.values() for text in texts), words)
        who = find_who(STAND_IN, STAND_IN, (), frozenset())
        self._word_for_word: dict[str, set[str]] = defaultdict(set)
        self._questions: dict[str, set[str]] = defaultdict(set)
        for relation, text in ((relation, text) for relation, texts in phrasings.items() for text in texts):
            words_alone = " ".join(words_of(text.replace("{}", STAND_IN)))
            self._word_for_word[words_alone].add(relation)
            if text.endswith("?"):
                self._questions[words_alone].add(relation)
        self._wordings = [
            (relation, wording)
            for relation, texts in phrasings.items()
            for wording in _of_one_kind([wording_of(text.replace("{}", STAND_IN), who) for text in texts])
        ]

    @lru_cache(maxsize=256)  # asked several times for one edit  # noqa: B019
    def made(self, prompt: str, subject: str | None) -> tuple[str, ...]:
        """Paraphrases of a prompt, in its own frame (`Question: ... Answer:`); none if it is not recognised."""
        asked = self.recognised(prompt, subject)
        if asked is None:
            return ()
        questions = self.questions(asked.relation)
        beginnings = [text for text in self._phrasings[asked.relation] if not text.endswith("?")]
        first, then = (questions, beginnings) if asked.frame.core.rstrip().endswith("?") else (beginnings, questions)
        put = [asked.put(text) for text in (*first[:MOST_ALIKE], *then[: MOST - MOST_ALIKE])]
        return tuple(text for text in put if text != prompt)

    def subject(self, prompt: str) -> str | None:
        """Whom or what it is about, of a question that people commonly ask; None where capitals must tell."""
        return self._slots.name(framed(prompt).core)

    def noun(self, prompt: str, subject: str | None) -> str | None:
        """What a prompt asks for, as words that a question about it can be put in: `the mother of Ada Quill`."""
        asked = self.recognised(prompt, subject)
        if asked is None:
            return None
        named = (match[1] for text in self._phrasings[asked.relation] if (match := _NOUN.match(text)))
        return next((f"the {noun} of {asked.name}" for noun in named), None)

    def recognised(self, prompt: str, subject: str | None) -> Recognised | None:
        """What it asks for, if that is one relation of someone who can be named."""
        who = find_who(prompt, subject, (), self.lexicon.template_words)
        name = subject or surface(prompt, who)
        if name is None:
            return None
        frame = framed(prompt, name)
        word_for_word = " ".join(words_of(frame.core.replace(name, STAND_IN)))
        found = self._word_for_word.get(word_for_word) or self.relations(frame_of(frame.core, who))
        return Recognised(next(iter(found)), name, frame) if len(found) == 1 else None

    def _asked_word_for_word(self, core: str) -> frozenset[str]:
        return frozenset(self._questions.get(core, ()))

    def questions(self, relation: str) -> list[str]:
        """Its phrasings that are questions, with {} for the subject."""
        return [text for text in self._phrasings[relation] if text.endswith("?")]

    @lru_cache(maxsize=4096)  # asked for each edit of a subject  # noqa: B019
    def relations(self, asked: Wording) -> frozenset[str]:
        """Those whose phrasings are most alike; none if none is alike enough."""
        if not 0 < len(asked.stems) <= MOST_STEMS:
            return frozenset()
        best: dict[str, float] = defaultdict(float)
        for relation, wording in self._wordings:
            best[relation] = max(best[relation], self.lexicon.likeness.of(asked, wording))
        least = max(ALIKE, max(best.values(), default=0.0) - TIED)
        return frozenset(relation for relation, likeness in best.items() if likeness >= least)


def _of_one_kind(wordings: Sequence[Wording]) -> list[Wording]:
    """What is told by no words of its own, the beginning of a sentence, asks for what the questions ask for."""
    kinds = Counter(each.asked for each in wordings if each.asked not in (None, THING))
    kind = kinds.most_common(1)[0][0] if kinds else None
    return [Wording(each.words, each.asked or kind) for each in wordings]


def kin(a: frozenset[str], b: frozenset[str]) -> bool:
    return any(not group.isdisjoint(a) and not group.isdisjoint(b) for group in KIN)


@lru_cache(maxsize=1)
def load_phrasebook() -> Phrasebook:
    """The one that ships. Columns: relation, phrasing."""
    phrasings: dict[str, list[str]] = defaultdict(list)
    with files("app.editors").joinpath(FILE).open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            phrasings[row["relation"]].append(row["phrasing"])
    return Phrasebook({relation: tuple(texts) for relation, texts in phrasings.items()})
