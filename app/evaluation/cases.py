"""What is evaluated: edits with the ways of asking that they must reach and the prompts that they must leave alone.

Reads Errata's own JSON lines and the files that the field passes around: CounterFact as ROME published it, zsRE as MEND
and EasyEdit keep it, KnowEdit. Fields are recognised by name, so that a file need not say which it is.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.domain.errors import InvalidRequest

Half = Literal["first", "second"]
ASKS_THE_SAME = ", but for the edited fact itself"
"""Kinds of locality end so where a file wants the edited question itself unchanged: they have a figure of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`untouched` are (kind, prompt) that must be answered as before; `old` is what the model may have said."""

    id: str
    source: str
    """The file it is from."""
    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    old: str | None = None
    paraphrases: tuple[str, ...] = ()
    untouched: tuple[tuple[str, str], ...] = ()
    overwrites: str | None = None
    """The id of an earlier case that this one corrects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows of the files are taken, and how their questions are put."""

    most: int | None = None
    seed: int = 0
    half: Half | None = None
    """By the hash of a row's id: what was settled on the one is reported on the other."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Field -> value: rows that have the field must have this value."""
    template: str = "{}"
    """Around prompts that end in a question mark: as the model is served."""


def load_cases(files: Sequence[Path], choice: Choice) -> list[Case]:
    """The chosen rows of all files, shuffled by the seed. Raises InvalidRequest for what cannot be read.

    A row that overwrites another stays behind it.
    """
    cases = [case for file in files for case in read_cases(file, choice.where)]
    if choice.half is not None:
        cases = [case for case in cases if _half(case.id) == choice.half]
    random.Random(choice.seed).shuffle(cases)
    cases = _overwritten_first(cases)[: choice.most]
    if not cases:
        raise InvalidRequest("No row of the files is left: loosen --where, or leave --half out.")
    return [_put(case, choice.template) for case in cases]


def read_cases(file: Path, where: Mapping[str, str]) -> Iterator[Case]:
    """JSON lines, or one JSON list. Raises InvalidRequest with the row that cannot be read."""
    for number, row in enumerate(_rows(file), 1):
        try:
            if all(str(row.get(name, value)) == value for name, value in where.items()):
                yield case_of(row, file.stem, number)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InvalidRequest(
                f"Row {number} of {file} is no edit that can be read ({type(error).__name__}: {error}): it needs a "
                "`prompt` and a `target`, or the fields of CounterFact, zsRE or KnowEdit."
            ) from error


def _rows(file: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows: Iterable[Mapping[str, Any]] = json.loads(text)
            return rows
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidRequest(f"{file} holds neither a JSON list nor a JSON object on each line: {error}") from error


def case_of(row: Mapping[str, Any], source: str, number: int) -> Case:
    """One row, whatever its dialect. Raises KeyError, TypeError or the like for one that is none."""
    name = str(row.get("id", row.get("case_id", f"{source}-{number}")))
    if "requested_rewrite" in row:
        return _counterfact(row, source, name)
    return Case(
        id=name,
        source=source,
        prompt=_first(row, "prompt", "src", "text"),
        target=_first(row, "target", "target_new", "alt", "answers"),
        subject=row.get("subject") or None,
        aliases=tuple(row.get("aliases", ())),
        old=_text(row.get("ground_truth", row.get("pred", row.get("target_old")))),
        paraphrases=tuple(dict.fromkeys(_paraphrases(row))),
        untouched=tuple(dict.fromkeys(_untouched(row))),
        overwrites=row.get("overwrites"),
    )


def _counterfact(row: Mapping[str, Any], source: str, name: str) -> Case:
    """As kmeng01/rome published it."""
    rewrite = row["requested_rewrite"]
    return Case(
        id=name,
        source=source,
        prompt=rewrite["prompt"].format(rewrite["subject"]),
        target=rewrite["target_new"]["str"],
        subject=rewrite["subject"],
        old=rewrite["target_true"]["str"],
        paraphrases=tuple(row.get("paraphrase_prompts", ())),
        untouched=tuple(("neighborhood", prompt) for prompt in row.get("neighborhood_prompts", ())),
    )


def _first(row: Mapping[str, Any], *names: str) -> str:
    text = _text(next((row[name] for name in names if row.get(name)), None))
    if not text:
        raise KeyError(" or ".join(names))
    return text


def _text(value: Any) -> str | None:
    """Answers come as a text, as a list of texts, or as a list of lists of them."""
    while isinstance(value, list):
        value = value[0] if value else None
    return None if value is None else str(value)


def _paraphrases(row: Mapping[str, Any]) -> Iterator[str]:
    for name in ("paraphrases", "rephrase_prompts", "rephrase", "rephrase_prompt", "paraphrase_prompts"):
        value = row.get(name)
        yield from [value] if isinstance(value, str) else value or ()


def _untouched(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Ours: a list of {prompt, kind}; KnowEdit: {kind: [{prompt, ...}]} under `locality`; EasyEdit: `loc`."""
    value = row.get("locality") or ()
    if isinstance(value, Mapping):
        kinds = ((kind, each if isinstance(each, list) else [each]) for kind, each in value.items())
        items = [(str(kind), item) for kind, each in kinds for item in each]
    else:
        items = [(str(item.get("kind", "unrelated")), item) for item in value]
    for kind, item in items:
        yield f"{kind}{ASKS_THE_SAME}" if _asks_the_same(row, item) else kind, str(_text(item["prompt"]))
    for kind in ("probes", "counter_examples"):
        for prompt in row.get(kind, ()):
            yield kind, prompt
    if row.get("loc"):
        yield "nq", str(row["loc"]).removeprefix("nq question: ")


def _asks_the_same(row: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """KnowEdit lists among the questions that must stay as they were some that ask for the very fact that is edited:
    they are about its subject, and their answer is the one that the edit replaces."""
    old, answer = _text(row.get("ground_truth")), _text(item.get("ground_truth"))
    subject = str(row.get("subject") or "")
    return bool(old and subject) and old == answer and subject in str(item["prompt"])


def _half(name: str) -> Half:
    return "first" if hashlib.sha256(name.encode()).digest()[0] % 2 == 0 else "second"


def _overwritten_first(cases: list[Case]) -> list[Case]:
    """Each correction directly after what it corrects, where both are there."""
    ids = {case.id for case in cases}
    later: dict[str, list[Case]] = {}
    for case in cases:
        if case.overwrites in ids:
            later.setdefault(str(case.overwrites), []).append(case)
    ordered: list[Case] = []

    def take(case: Case) -> None:
        ordered.append(case)
        for each in later.get(case.id, ()):
            take(each)

    for case in cases:
        if case.overwrites not in ids:
            take(case)
    return ordered


def _put(case: Case, template: str) -> Case:
    def put(prompt: str) -> str:
        return template.replace("{}", prompt) if prompt.rstrip().endswith("?") else prompt

    return replace(
        case,
        prompt=put(case.prompt),
        paraphrases=tuple(put(prompt) for prompt in case.paraphrases),
        untouched=tuple((kind, put(prompt)) for kind, prompt in case.untouched),
    )
