"""The phrasebook: phrasings of common questions, from which paraphrases of recognised prompts are generated.

A phrasing is a question, or the beginning of a sentence that the answer completes, with {} for the subject. A prompt is
recognised where it is one of them word for word. They are more to fit a value in; scope does not rest on them. English;
other languages and other questions have no phrasings, and lose nothing.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from app.domain.words import placed_words, words_of

FILE = "phrasebook_v1.tsv"
MOST, MOST_ALIKE = 6, 4
"""The most paraphrases of a prompt, and the most of them in the prompt's own form, as a question or as a sentence."""
MOST_WORDS = 10
"""The most words of a name."""
_LABELLED = re.compile(r"(?s)(\s*(?:\w+:\s+)?)(.*?)(\s*(?:\w+:\s*)?)\Z")
"""The parts of a prompt: a label before the question, the question, and a label after it."""
_NOUN = re.compile(r"The (.+) of \{\} (?:is|was)$")


@dataclass(frozen=True, slots=True)
class RecognisedPrompt:
    """A recognised prompt, which asks for a relation of `name`, with the texts before and after its question."""

    relation: str
    name: str
    question: str
    start: str
    end: str

    def put(self, phrasing: str) -> str:
        """The prompt in another phrasing, with {} for the name. The beginning of a sentence has nothing around it."""
        text = phrasing.replace("{}", self.name)
        return f"{self.start}{text}{self.end}" if text.endswith("?") else text


class Phrasebook:
    """The phrasings of each relation."""

    def __init__(self, phrasings: Mapping[str, Sequence[str]]) -> None:
        self._phrasings = phrasings
        self._relations: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
        for relation, texts in phrasings.items():
            for text in texts:
                before, _, after = text.partition("{}")
                self._relations[tuple(words_of(before)), tuple(words_of(after))].add(relation)
        self._befores = sorted({before for before, _ in self._relations}, key=len, reverse=True)

    def paraphrases(self, prompt: str, subject: str | None) -> tuple[str, ...]:
        """The paraphrases of a prompt, with the labels around it; none if it is not recognised."""
        recognised = self.recognised(prompt, subject)
        if recognised is None:
            return ()
        questions = self.questions(recognised.relation)
        beginnings = [text for text in self._phrasings[recognised.relation] if not text.endswith("?")]
        first, then = (questions, beginnings) if recognised.question.endswith("?") else (beginnings, questions)
        put = [recognised.put(text) for text in (*first[:MOST_ALIKE], *then[: MOST - MOST_ALIKE])]
        return tuple(text for text in put if text != prompt)

    def noun(self, prompt: str, subject: str | None) -> str | None:
        """The prompt's object as a noun phrase, for a question about it: `the mother of Ada Quill`."""
        recognised = self.recognised(prompt, subject)
        if recognised is None:
            return None
        named = (match[1] for text in self._phrasings[recognised.relation] if (match := _NOUN.match(text)))
        return next((f"the {noun} of {recognised.name}" for noun in named), None)

    @lru_cache(maxsize=256)  # asked several times for one edit  # noqa: B019
    def recognised(self, prompt: str, subject: str | None) -> RecognisedPrompt | None:
        """The recognised prompt, if it asks for one relation of a name: of the given subject, or of a capitalised
        name."""
        match = _LABELLED.match(prompt)
        assert match is not None
        start, question, end = match.groups()
        placed = placed_words(question)
        words = tuple(word for word, _, _ in placed)
        for before in self._befores:
            if words[: len(before)] != before:
                continue
            for stop in range(len(before) + 1, min(len(words), len(before) + MOST_WORDS) + 1):
                relations = self._relations.get((before, words[stop:]), set())
                name = question[placed[len(before)][1] : placed[stop - 1][2]]
                if len(relations) == 1 and self._named(name, subject):
                    return RecognisedPrompt(next(iter(relations)), name, question, start, end)
        return None

    @staticmethod
    def _named(name: str, subject: str | None) -> bool:
        if subject is not None:
            return words_of(name) == words_of(subject)
        return name[0].isupper() or name[0].isdigit()

    def questions(self, relation: str) -> list[str]:
        """The phrasings of a relation that are questions, with {} for the subject."""
        return [text for text in self._phrasings[relation] if text.endswith("?")]


@lru_cache(maxsize=1)
def load_phrasebook() -> Phrasebook:
    """Load the phrasebook that ships. Its columns are relation and phrasing."""
    phrasings: dict[str, list[str]] = defaultdict(list)
    with files("app.scope").joinpath(FILE).open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            phrasings[row["relation"]].append(row["phrasing"])
    return Phrasebook({relation: tuple(texts) for relation, texts in phrasings.items()})
