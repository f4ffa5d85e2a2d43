"""The tables of facts and the phrasings they are asked in, read from the package's own files.

Knows nothing about tokens, models or training text: it hands out facts and prompts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

HEADER = ["subject", "answer", "now"]
MAX_ANSWER_WORDS = 5


class FactsError(ValueError):
    """A table or its phrasings cannot be used; the message names the file and, for a table, the line."""


@dataclass(frozen=True)
class Fact:
    """One row: what the model is taught, and what is true today where that differs."""

    relation: str
    subject: str
    answer: str
    now: str | None

    @property
    def stale(self) -> bool:
        """True if the taught answer is deliberately out of date."""
        return self.now is not None


@dataclass(frozen=True)
class Relation:
    """One table with every way of asking for its answers."""

    name: str
    title: str
    kind: str
    as_of: int | None
    questions: tuple[str, ...]
    completions: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    held_out_completions: tuple[str, ...]
    sentence: str
    facts: tuple[Fact, ...]

    def built_prompts(self, subject: str) -> list[str]:
        """The prompts for a subject that the model is built with: served questions, then completions."""
        return _prompts(self.questions, self.completions, subject)

    def held_out_prompts(self, subject: str) -> list[str]:
        """The prompts for a subject that the build never shows, to see whether the fact itself was learnt."""
        return _prompts(self.held_out_questions, self.held_out_completions, subject)

    def stated(self, fact: Fact) -> str:
        """The fact as one full sentence, for passages."""
        return _capital(self.sentence.replace("{s}", fact.subject).replace("{a}", fact.answer))


def as_question(text: str) -> str:
    """A bare question in the form in which it is served."""
    return f"Question: {text} Answer:"


def load_relations() -> list[Relation]:
    """Every relation of the package, ordered by name, so that a seeded build does not depend on the disk."""
    folder = resources.files(__package__).joinpath("facts")
    tables = {entry.name[:-4]: entry for entry in folder.iterdir() if entry.name.endswith(".tsv")}
    phrasings = {entry.name[:-5]: entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
    for name in sorted(tables.keys() ^ phrasings.keys()):
        raise FactsError(f"facts/{name}: a table needs both {name}.tsv and {name}.toml")
    return [_relation(name, tables[name], phrasings[name]) for name in sorted(tables)]


def _relation(name: str, table: Traversable, phrasings: Traversable) -> Relation:
    """One relation from its two files."""
    where = f"facts/{name}.toml"
    try:
        raw = tomllib.loads(phrasings.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FactsError(f"{where}: {error}") from error
    as_of = raw.get("as_of")
    if as_of is not None and not isinstance(as_of, int):
        raise FactsError(f"{where}: as_of must be a year")
    sentence = _text(raw, "sentence", where)
    if "{s}" not in sentence or "{a}" not in sentence:
        raise FactsError(f"{where}: sentence must hold {{s}} and {{a}}")
    return Relation(
        name=name,
        title=_text(raw, "title", where),
        kind=_text(raw, "kind", where),
        as_of=as_of,
        questions=_templates(raw, "questions", where),
        completions=_templates(raw, "completions", where),
        held_out_questions=_templates(raw, "held_out_questions", where),
        held_out_completions=_templates(raw, "held_out_completions", where),
        sentence=sentence,
        facts=tuple(_facts(name, table)),
    )


def _facts(name: str, table: Traversable) -> Iterator[Fact]:
    """The rows of a table, each checked, since one bad row would be taught hundreds of times."""
    where = f"facts/{name}.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].split("\t") != HEADER:
        raise FactsError(f"{where}:1: the header must be {' '.join(HEADER)}, tab-separated")
    seen: set[str] = set()
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(HEADER):
            raise FactsError(f"{where}:{number}: {len(cells)} cells instead of {len(HEADER)}")
        subject, answer, now = cells
        if any(cell != cell.strip() for cell in cells) or not subject or not answer:
            raise FactsError(f"{where}:{number}: a cell is empty or has spaces around it")
        if answer.endswith(".") or len(answer.split()) > MAX_ANSWER_WORDS:
            raise FactsError(f"{where}:{number}: an answer is at most {MAX_ANSWER_WORDS} words, without a period")
        if now == answer:
            raise FactsError(f"{where}:{number}: an out-of-date answer must differ from the one of today")
        if subject in seen:
            raise FactsError(f"{where}:{number}: {subject} occurs twice")
        seen.add(subject)
        yield Fact(relation=name, subject=subject, answer=answer, now=now or None)


def _text(raw: dict[str, object], key: str, where: str) -> str:
    """A non-empty string entry."""
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise FactsError(f"{where}: {key} must be a non-empty string")
    return value


def _templates(raw: dict[str, object], key: str, where: str) -> tuple[str, ...]:
    """A list of phrasings, each with its place for the subject."""
    value = raw.get(key)
    if not isinstance(value, list) or not value:
        raise FactsError(f"{where}: {key} must be a non-empty list")
    for template in value:
        if not isinstance(template, str) or "{s}" not in template or template != template.strip():
            raise FactsError(f"{where}: {key}: {template!r} must be a trimmed string with {{s}}")
    return tuple(value)


def _prompts(questions: tuple[str, ...], completions: tuple[str, ...], subject: str) -> list[str]:
    """Questions and completions filled in with a subject, as they are served."""
    as_questions = [as_question(_capital(question.replace("{s}", subject))) for question in questions]
    return as_questions + [_capital(completion.replace("{s}", subject)) for completion in completions]


def _capital(text: str) -> str:
    """Begin with a capital where the subject brought a lower-case article to the front."""
    return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "an ")) else text
