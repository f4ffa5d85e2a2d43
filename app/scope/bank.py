"""The generic questions that ship, on many relations and in several phrasings each: the background of every
namespace."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

BANK = "scope_bank_v1.tsv"


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPrompt:
    """A generic prompt that ships. Prompts with the same subject and relation ask the same."""

    relation: str
    subject: str
    text: str


@lru_cache(maxsize=1)
def load_bank() -> tuple[BankPrompt, ...]:
    """Load the bank that ships. Its columns are relation, subject and text."""
    path = files("app.scope") / BANK
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(BankPrompt(relation=row["relation"], subject=row["subject"], text=row["text"]) for row in rows)


def plain(prompt: BankPrompt) -> str:
    """The prompt's text without the labels that surround most prompts."""
    return prompt.text.removeprefix("Question: ").removesuffix(" Answer:")
