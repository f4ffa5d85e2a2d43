"""The generic prompts that ship: questions on many relations, each in several phrasings, to calibrate distances on.

The file is part of what a radius means: edits learned under it keep their radii, so it is never changed in place.
"""

import csv
from functools import lru_cache
from importlib.resources import files

from app.domain.words import words_of
from app.editors.base import BankPrompt

BANK = "scope_bank_v1.tsv"


@lru_cache(maxsize=1)
def load_bank() -> tuple[BankPrompt, ...]:
    """Columns: relation, subject, text."""
    path = files("app.editors") / BANK
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
