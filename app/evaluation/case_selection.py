"""Selects the rows to edit from all files, their order, and how their questions are put."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

from app.domain.errors import InvalidRequest
from app.domain.words import words_of
from app.evaluation.cases import Case, case_of
from app.evaluation.rows import rows_of
from app.scope.bank import load_bank

Half = Literal["settle", "report"]
"""Choices are settled on one half of the rows, and reported on the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSelection:
    """The selection of rows, and the template of their questions."""

    most: int | None = None
    seed: int = 0
    half: Half | None = None
    """The half of the rows to take, by the hash of their ids."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Field -> required value; rows without the field are kept."""
    template: str = "{}"
    """Template around prompts that end in a question mark, as the model is served."""


def load_cases(files: Sequence[Path], choice: CaseSelection) -> list[Case]:
    """The selected rows of all files, shuffled by the seed; a row that overwrites another stays behind it. Raises
    InvalidRequest for unreadable files."""
    if "{}" not in choice.template:
        raise InvalidRequest(f"The template {choice.template!r} has no {{}}: write it where the question goes.")
    cases = _with_unique_ids([list(read_cases(file, choice.where)) for file in files])
    if choice.half is not None:
        cases = [case for case in cases if half_of(case.id) == choice.half]
    random.Random(choice.seed).shuffle(cases)
    cases = _ordered(cases)[: choice.most]
    if not cases:
        raise InvalidRequest("No row of the files is left: loosen --where, or leave --half out.")
    return [_templated(case, choice.template) for case in cases]


def generic_questions(edited: Sequence[Case]) -> list[str]:
    """Bundled questions about subjects that no edited prompt names; they replace rows that are never edited."""
    named = " | ".join(" ".join(words_of(case.prompt)) for case in edited)
    return [each.text for each in load_bank() if f" {' '.join(words_of(each.subject))} " not in f" {named} "]


def read_cases(file: Path, where: Mapping[str, str]) -> Iterator[Case]:
    """Cases of a file. Raises InvalidRequest with the row that cannot be read."""
    for number, row in enumerate(rows_of(file), 1):
        try:
            if all(str(row.get(name, value)) == value for name, value in where.items()):
                yield case_of(row, file.stem, number)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InvalidRequest(
                f"Row {number} of {file} is not a readable edit ({type(error).__name__}: {error}): it needs a "
                "`prompt` and a `target`, or the fields of CounterFact, zsRE or KnowEdit."
            ) from error


def _with_unique_ids(files: Sequence[Sequence[Case]]) -> list[Case]:
    """Makes ids unique: the first row keeps a duplicated id, so that no half changes; later ones get their file as a
    prefix. What a row overwrites is looked up in its own file first."""
    taken = {case.id for cases in files for case in cases}
    seen: set[str] = set()
    unique: list[Case] = []
    for cases in files:
        named: list[Case] = []
        names: dict[str | None, str] = {}
        for case in cases:
            name = case.id if case.id not in seen else _unused(f"{case.source}/{case.id}", taken)
            seen.add(case.id)
            taken.add(name)
            names.setdefault(case.id, name)
            named.append(replace(case, id=name))
        unique.extend(replace(case, overwrites=names.get(case.overwrites, case.overwrites)) for case in named)
    return unique


def _unused(name: str, taken: set[str]) -> str:
    free = name
    for number in count(2):
        if free not in taken:
            break
        free = f"{name}#{number}"
    return free


def half_of(name: str) -> Half:
    """The half that an id belongs to."""
    return "settle" if hashlib.sha256(name.encode()).digest()[0] % 2 == 0 else "report"


def _ordered(cases: list[Case]) -> list[Case]:
    """Puts each correction directly after the case that it corrects, where both are present."""
    ids = {case.id for case in cases}
    later: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.overwrites is not None and case.overwrites in ids:
            later[case.overwrites].append(case)
    ordered: list[Case] = []
    waiting = [case for case in reversed(cases) if case.overwrites not in ids]
    while waiting:
        case = waiting.pop()
        ordered.append(case)
        waiting.extend(reversed(later[case.id]))
    if len(ordered) < len(cases):
        circle = _listed(ids - {case.id for case in ordered})
        raise InvalidRequest(
            f"These rows overwrite one another in a circle, or themselves: {circle}. Each needs an edit before it."
        )
    return ordered


def _listed(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _templated(case: Case, template: str) -> Case:
    def put(prompt: str) -> str:
        return template.replace("{}", prompt) if prompt.rstrip().endswith("?") else prompt

    return replace(
        case,
        prompt=put(case.prompt),
        paraphrases=tuple(put(prompt) for prompt in case.paraphrases),
        untouched=tuple((kind, put(prompt)) for kind, prompt in case.untouched),
    )
