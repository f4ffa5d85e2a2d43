"""Words that ask for the same, words that say little, and words that tell two questions apart. English.

Kept as a file that ships: written by hand from general knowledge of the language, of no benchmark's.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

FILE = "synonyms_v1.tsv"
STEM_CHARS = 5
"""Of a word that count: `broadcasts`, `broadcasted` and `broadcaster` are the same here."""
_ESTABLISHED = frozenset(("founded", "founding", "founder"))


def stem_of(word: str) -> str:
    """A number is itself; to found is not to find."""
    if word in _ESTABLISHED:
        return "establish"[:STEM_CHARS]
    return word if word[0].isdigit() else word[:STEM_CHARS]


@dataclass(frozen=True, eq=False)
class Synonyms:
    """By stem: the groups that a word belongs to, of which it may be in several."""

    groups: dict[str, frozenset[int]] = field(default_factory=dict)
    light: frozenset[str] = frozenset()
    contrasts: dict[str, frozenset[str]] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    """All of them, as they are written."""

    @lru_cache(maxsize=1 << 14)  # of generic phrasings, again and again  # noqa: B019
    def groups_of(self, stems: frozenset[str]) -> frozenset[int]:
        return frozenset(group for stem in stems for group in self.groups.get(stem, ()))

    def contrary(self, a: frozenset[str], b: frozenset[str]) -> bool:
        """Whether the one has a word and the other, instead of it, one that tells it apart: first and last, 2012 and
        2013."""
        mine, theirs = a - b, b - a
        if any(stem[0].isdigit() for stem in mine) and any(stem[0].isdigit() for stem in theirs):
            return True
        return any(not self.contrasts[stem].isdisjoint(theirs) for stem in mine if stem in self.contrasts)


@lru_cache(maxsize=1)
def load_synonyms() -> Synonyms:
    """Those that ship. Columns: kind (same, light or contrast), words."""
    groups: dict[str, set[int]] = defaultdict(set)
    contrasts: dict[str, set[str]] = defaultdict(set)
    light: set[str] = set()
    words: set[str] = set()
    with files("app.editors").joinpath(FILE).open(encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter="\t")):
            words.update(row["words"].split())
            stems = {stem_of(word) for word in row["words"].split()}
            if row["kind"] == "light":
                light |= stems
            for stem in stems:
                if row["kind"] == "same":
                    groups[stem].add(number)
                elif row["kind"] == "contrast":
                    contrasts[stem] |= stems - {stem}
    return Synonyms(
        {stem: frozenset(numbers) for stem, numbers in groups.items()},
        frozenset(light),
        {stem: frozenset(others) for stem, others in contrasts.items()},
        frozenset(words),
    )
