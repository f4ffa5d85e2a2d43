"""The generic questions that ship, on many relations, each in several phrasings: what is asked anyway."""

import csv
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from app.domain.words import words_of

BANK = "scope_bank_v1.tsv"


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPrompt:
    """A generic prompt that ships: what asks the same thing has the same subject and relation."""

    relation: str
    subject: str
    text: str
    words: frozenset[str] = field(default_factory=frozenset)
    """The words of its phrasing, its subject left out."""


@lru_cache(maxsize=1)
def load_bank() -> tuple[BankPrompt, ...]:
    """Columns: relation, subject, text."""
    path = files("app.scope") / BANK
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(
        BankPrompt(
            relation=row["relation"],
            subject=row["subject"],
            text=row["text"],
            words=frozenset(words_of(row["text"])) - frozenset(words_of(row["subject"])),
        )
        for row in rows
    )


def plain(prompt: BankPrompt) -> str:
    """Without the labels that stand around most of them."""
    return prompt.text.removeprefix("Question: ").removesuffix(" Answer:")
