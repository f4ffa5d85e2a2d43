"""Words that share a meaning, of a vocabulary that no list by hand covers: forbid and prohibit. English.

Kept as a file that ships, made from WordNet 3.0 (Princeton University; its notice stands in LICENSE). Synonyms only:
words that are merely used alike, as word vectors have them, are as often two things that must be told apart (user name
and password). A word has several meanings, so that one alone proves little: it is for questions of many words. To make
it again, of a folder with WordNet's files (Debian: wordnet-base):
`python -m app.editors.thesaurus /usr/share/wordnet > app/editors/thesaurus_v1.tsv`
"""

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

from app.editors.scope import COMMON, words_of
from app.editors.synonyms import stem_of

FILE = "thesaurus_v1.tsv"
SENSES = 3
"""Of a word, by part of speech, the most frequent: by the others nearly any word may mean nearly any."""
_WORD = re.compile(r"[a-z]{3,}")
_ENDINGS = (*(("ie", "y"), ("ied", "y"), ("e", "")), *((end, put) for end in ("ed", "ing") for put in ("e", "")))
"""Of inflected words, and what stands there in the base form."""
_SAME, _FORM = "same", "form"
_Sense = tuple[str, str]
"""Part of speech and offset, as WordNet's files name one."""


@dataclass(frozen=True, eq=False)
class Thesaurus:
    """Base form -> those that share a meaning with it; irregular form -> base form."""

    same: dict[str, frozenset[str]]
    forms: dict[str, str]

    @lru_cache(maxsize=1 << 14)  # of prompts and phrasings, again and again  # noqa: B019
    def base(self, word: str) -> str:
        """`hosted` is host; a word that is not known is itself. A plural's s is off already; a printer is not to
        print."""
        if word in self.same:
            return word
        if word in self.forms:
            return self.forms[word]
        made = (word.removesuffix(end) + put for end, put in _ENDINGS if word.endswith(end))
        return next((each for each in made if each in self.same), word)

    def beside(self, word: str, others: frozenset[str]) -> list[str]:
        """Those of the others that share a meaning with the word, in whatever form."""
        alike = self.same.get(self.base(word))
        if alike is None:
            return []
        return [each for each in others if self.base(each) in alike]


@cache
def load_thesaurus() -> Thesaurus:
    """The one that ships. Columns: kind (same or form), word, words after it that mean the same, or its base."""
    same: dict[str, set[str]] = defaultdict(set)
    forms: dict[str, str] = {}
    with files("app.editors").joinpath(FILE).open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["kind"] == _FORM:
                forms[row["word"]] = row["words"]
                continue
            for other in row["words"].split():
                same[row["word"]].add(other)
                same[other].add(row["word"])
    return Thesaurus({word: frozenset(others) for word, others in same.items()}, forms)


# -- making it


def rows_of(folder: Path) -> Iterator[tuple[str, str, str]]:
    """What the file holds, of the words that WordNet's tagged texts have. Pairs of one stem are compared by that."""
    synsets = _synsets(folder)
    tagged = {line.split("%")[0] for line in (folder / "cntlist.rev").read_text(encoding="utf-8").splitlines()}
    senses = {word: found for word, found in _senses(folder).items() if word in tagged}
    same: dict[str, set[str]] = defaultdict(set)
    for word, found in senses.items():
        for sense in found:
            same[word].update(other for other in synsets[sense] if sense in senses.get(other, ()))
    plain = {word: words_of(word)[0] for word in senses}
    pairs = {tuple(sorted((plain[a], plain[b]))) for a, others in same.items() for b in others}
    pairs = {(a, b) for a, b in pairs if stem_of(a) != stem_of(b)}
    kept: dict[str, list[str]] = defaultdict(list)
    for a, b in sorted(pairs):
        if COMMON.isdisjoint((a, b)):
            kept[a].append(b)
    known = {*kept, *(b for others in kept.values() for b in others)}
    yield from ((_SAME, word, " ".join(others)) for word, others in kept.items())
    forms = {form: plain[base] for form, base in _forms(folder) if plain.get(base) in known}
    thesaurus = Thesaurus({word: frozenset() for word in known}, forms)
    # a noun of its own that ends as an inflected word does: feed is not what was paid as a fee
    nouns = (words_of(word)[0] for word, found in _senses(folder).items() if any(part == "n" for part, _ in found))
    forms |= {word: word for word in nouns if word not in {*known, *forms} and thesaurus.base(word) != word}
    yield from sorted((_FORM, form, base) for form, base in forms.items())


def _synsets(folder: Path) -> dict[_Sense, list[str]]:
    """The words of each sense. wndb(5WN): offset, file, part, count of words in hex, words with a number each, ..."""
    found = {}
    for part, line in _lines(folder, "data"):
        head = line.split("|")[0].split()
        count = int(head[3], 16)
        found[part, head[0]] = [re.sub(r"\(.*\)", "", word).lower() for word in head[4 : 4 + 2 * count : 2]]
    return found


def _senses(folder: Path) -> dict[str, set[_Sense]]:
    found: dict[str, set[_Sense]] = defaultdict(set)
    for part, line in _lines(folder, "index"):
        word, _, _, pointers, *rest = line.split()
        if _WORD.fullmatch(word):
            found[word].update((part, offset) for offset in rest[int(pointers) + 2 :][:SENSES])
    return found


def _forms(folder: Path) -> Iterator[tuple[str, str]]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"{part}.exc").read_text(encoding="utf-8").splitlines():
            form, base, *_ = line.split()
            if _WORD.fullmatch(form):
                yield words_of(form)[0], base


def _lines(folder: Path, kind: str) -> Iterator[tuple[str, str]]:
    for part, letter in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r")):
        for line in (folder / f"{kind}.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                yield letter, line


if __name__ == "__main__":
    print("kind\tword\twords")
    for row in rows_of(Path(sys.argv[1])):
        print("\t".join(row))
