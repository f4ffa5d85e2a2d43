"""Cases of an evaluation: edits, the questions that they must reach, and the prompts that they must leave alone.

Reads Errata's own JSON lines and the files in common use: CounterFact as published with ROME and as in EasyEdit, zsRE
as annotated for MEND and as in EasyEdit, and KnowEdit. Fields are recognised by name, so that a file need not declare
its format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ASKS_THE_SAME = ", but for the edited fact itself"
"""Suffix of locality kinds for prompts that a file wants unchanged although they ask the edited question itself; they
have a figure of their own."""

PARAPHRASES = (
    "paraphrases", "rephrase_prompts", "rephrase", "rephrase_prompt", "paraphrase_prompts", "filtered_rephrases",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One edit to evaluate. `untouched` holds (kind, prompt) pairs whose answers must not change; `old` is what the
    model may have answered before."""

    id: str
    source: str
    """Name of the file that it is from, without suffix."""
    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    old: str | None = None
    paraphrases: tuple[str, ...] = ()
    untouched: tuple[tuple[str, str], ...] = ()
    overwrites: str | None = None
    """Id of an earlier case that this one corrects."""


def case_of(row: Mapping[str, Any], source: str, number: int) -> Case:
    """Reads one row in any known format. Raises KeyError, TypeError, ValueError or the like for a row in none."""
    case = _read(row, source, number)
    _check(case)
    return case


def _read(row: Mapping[str, Any], source: str, number: int) -> Case:
    name = _name(row.get("id")) or _name(row.get("case_id")) or f"{source}-{number}"
    if "requested_rewrite" in row:
        return _counterfact(row, source, name)
    return Case(
        id=name,
        source=source,
        prompt=_first(row, "prompt", "src", "text", "input"),
        target=_first(row, "target", "target_new", "alt", "answers", "labels", "alternatives", "output"),
        subject=_only_text(row.get("subject") or row.get("concept") or None, "subject"),
        aliases=tuple(_texts(row, "aliases")),
        old=_old(row),
        paraphrases=tuple(dict.fromkeys(_paraphrases(row))),
        untouched=tuple(dict.fromkeys(_untouched(row))),
        overwrites=_name(row.get("overwrites")),
    )


def _check(case: Case) -> None:
    """Refuses what no request could carry, which would otherwise end the run half way."""
    texts_of = {
        "prompt": [case.prompt],
        "target": [case.target],
        "paraphrases": case.paraphrases,
        "aliases": case.aliases,
    }
    for name, texts in texts_of.items():
        if not all(text.strip() for text in texts):
            raise ValueError(f"`{name}` holds an empty text")
    if case.subject is not None and not case.subject.strip():
        raise ValueError("`subject` is blank")
    for text in (case.id, case.prompt, case.target, *case.paraphrases, *case.aliases, case.subject, case.old):
        _check_encodable(text)
    for kind, prompt in case.untouched:
        _check_encodable(kind)
        _check_encodable(prompt)


def _check_encodable(text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} holds half of a surrogate pair, which is not a character") from None


def _counterfact(row: Mapping[str, Any], source: str, name: str) -> Case:
    """Reads CounterFact as published in kmeng01/rome."""
    rewrite = row["requested_rewrite"]
    return Case(
        id=name,
        source=source,
        prompt=rewrite["prompt"].format(rewrite["subject"]),
        target=_first(rewrite["target_new"], "str"),
        subject=_only_text(rewrite["subject"], "subject"),
        old=_text(rewrite["target_true"]["str"]),
        paraphrases=tuple(_texts(row, "paraphrase_prompts")),
        untouched=tuple(("neighborhood", prompt) for prompt in _texts(row, "neighborhood_prompts")),
    )


def _name(value: Any) -> str | None:
    """Normalises an id, which may be text or number: 5 and "5" are the same."""
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"an id must be a text or a number, not {value!r}")
    return None if value is None else str(value)


def _first(row: Mapping[str, Any], *names: str) -> str:
    text = _text(next((row[name] for name in names if row.get(name)), None))
    if not text:
        raise KeyError(" or ".join(names))
    return text


def _text(value: Any) -> str | None:
    """Reads an answer: a text, a list of texts, nested lists of them, or MEND's list of {answer}; the first counts."""
    while isinstance(value, list):
        value = value[0] if value else None
        if isinstance(value, Mapping):
            value = value["answer"]
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"a text is wanted, not {value!r}")
    return None if value is None else str(value)


def _only_text(value: Any, name: str) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError(f"`{name}` must be a text, not {value!r}")
    return value


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    """Reads a list of texts, or a single text as a list of one."""
    value = row.get(name)
    if isinstance(value, str):
        return [value] if value else []
    if value and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise TypeError(f"`{name}` must be a list of texts, not {value!r}")
    return list(value or ())


def _old(row: Mapping[str, Any]) -> str | None:
    names = ("ground_truth", "pred", "target_old", "prediction")
    return _text(next((row[name] for name in names if name in row), None))


def _paraphrases(row: Mapping[str, Any]) -> Iterator[str]:
    for name in PARAPHRASES:
        yield from _texts(row, name)


def _untouched(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, prompt) pairs from Errata's list of {prompt, kind}, KnowEdit's {kind: [{prompt, ...}]} under `locality`,
    or EasyEdit's `loc` (zsRE) and `locality_prompt` (CounterFact)."""
    value = row.get("locality") or ()
    if isinstance(value, Mapping):
        kinds = ((kind, each if isinstance(each, list) else [each]) for kind, each in value.items())
        items = [(str(kind), item) for kind, each in kinds for item in each]
    else:
        items = [(str(item.get("kind", "unrelated")), item) for item in value]
    for kind, item in items:
        yield f"{kind}{ASKS_THE_SAME}" if _asks_the_same(row, item) else kind, _first(item, "prompt")
    for kind in ("probes", "counter_examples"):
        for prompt in _texts(row, kind):
            yield kind, prompt
    for prompt in _texts(row, "loc"):
        yield "nq", prompt.removeprefix("nq question: ")
    for prompt in _texts(row, "locality_prompt"):
        yield "neighborhood", prompt


def _asks_the_same(row: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """True if an item asks for the edited fact itself: it is about the edit's subject, and its answer is the one that
    the edit replaces. KnowEdit lists such items among the questions that must stay unchanged."""
    old, answer = _text(row.get("ground_truth")), _text(item.get("ground_truth"))
    subject = str(row.get("subject") or "")
    return bool(old and subject) and old == answer and subject in str(item["prompt"])
