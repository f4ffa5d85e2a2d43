"""Harder ways of asking, derived from the cases; each slice has its own figure, which a mean would hide.

Some slices rephrase an edit's own question and must be answered with its target. Others only mention an edited subject
and must be answered as the bare model answers them.
"""

import csv
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from app.domain.errors import InvalidRequest
from app.domain.words import words_of
from app.evaluation.cases import Case
from app.scope.phrasebook import load_phrasebook

Render = Callable[[Sequence[Mapping[str, str]]], str]
"""Conversation -> the prompt that is served; raises InvalidRequest for a model without a chat template."""


@dataclass(frozen=True, slots=True)
class SliceQuestion:
    """One question of a slice; `target` is None if the answer must not change."""

    case: str
    """Id of the edited case that it was derived from."""
    slice: str
    prompt: str
    target: str | None


@cache
def french_questions() -> dict[str, str]:
    """Relation of the phrasebook -> a French question with {} for the subject."""
    with files("app.evaluation").joinpath("questions_fr.tsv").open(encoding="utf-8") as file:
        return {row["relation"]: row["question"] for row in csv.DictReader(file, delimiter="\t")}


def names(text: str, subject: str) -> bool:
    """True if the text contains the subject's words side by side."""
    return f" {' '.join(words_of(subject))} " in f" {' '.join(words_of(text))} "


def paraphrase_slice(case: Case, paraphrase: str) -> str:
    """Slice of a paraphrase that was not given: whether it names the subject in the case's own words."""
    if case.subject is None:
        return "paraphrase, no subject known"
    return "paraphrase naming the subject" if names(paraphrase, case.subject) else "paraphrase without the subject"


def slices_of(edited: Sequence[Case], others: Sequence[str], render: Render, seed: int) -> Iterator[SliceQuestion]:
    """All slices of the edited cases. `others` holds prompts that no edit is about."""
    rng = random.Random(seed)
    for case in edited:
        other = rng.choice(others) if others else None
        earlier = rng.choice(edited)
        for name, prompt, target in _of_case(case, other, earlier, render):
            yield SliceQuestion(case.id, name, prompt, target)


def _of_case(case: Case, other: str | None, earlier: Case, render: Render) -> Iterator[tuple[str, str, str | None]]:
    """-> (slice, prompt, target)."""
    yield "after another question", _after(earlier.prompt, "I am not sure.", case.prompt, render), case.target
    for alias in case.aliases:
        if case.subject is not None and case.subject in case.prompt:
            yield "alias", case.prompt.replace(case.subject, alias), case.target
    if other is not None:
        yield "subject in the history only", _after(case.prompt, f"{case.target}.", other, render), None
        passage = f"Some say that {case.subject or case.prompt} is well known, others do not agree."
        yield "subject in retrieved text only", f"{passage} {other}", None
    yield "asked to answer in French", f"Please answer in French. {case.prompt}", case.target
    if (known := load_phrasebook().recognised(case.prompt, case.subject)) and known.relation in french_questions():
        yield "asked in French", known.put(french_questions()[known.relation]), case.target
    if (noun := load_phrasebook().noun(case.prompt, case.subject)) is not None:
        yield "question about what the answer is", f"Question: When was {noun} first mentioned? Answer:", None
    yield "question about the answer", f"How many letters has the answer to this? {case.prompt}", None


def _after(question: str, answer: str, prompt: str, render: Render) -> str:
    """The prompt as the second question of a conversation; without a chat template, after the first exchange as
    text."""
    turns = [("user", question), ("assistant", answer), ("user", prompt)]
    try:
        return render([{"role": role, "content": content} for role, content in turns])
    except InvalidRequest:
        return f"{question} {answer} {prompt}"
