"""Minimal pairs: an edit, questions that ask the same, and questions that differ little but ask something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.evaluation.case_selection import Half
from app.evaluation.kinds import ScopeCaseSelection, chosen, half_in, read, text_in, texts_in
from app.evaluation.trials import EditSpec, Trial, questions_about, turn

ALONE, TICKED = "alone", "ticked"
"""Names of the trials: requests with prompt and target only, and requests that carry paraphrases and counter-examples
as if ticked in a preview."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    kind: str
    """The way in which the questions in `other` differ from the edit's."""
    prompt: str
    target: str
    same: tuple[str, ...]
    other: tuple[str, ...]
    paraphrases: tuple[str, ...]
    counter_examples: tuple[str, ...]
    """`paraphrases` and `counter_examples` are what the edit's author may add."""
    half: Half


def pair_of(row: Mapping[str, Any]) -> Pair:
    prompt = text_in(row, "prompt")
    return Pair(
        kind=text_in(row, "kind") if "kind" in row else "",
        prompt=prompt,
        target=text_in(row, "target"),
        same=texts_in(row, "same"),
        other=texts_in(row, "other"),
        paraphrases=texts_in(row, "paraphrases"),
        counter_examples=texts_in(row, "counter_examples"),
        half=half_in(row, prompt),
    )


def trials_of(files: Sequence[Path], selection: ScopeCaseSelection) -> list[Trial]:
    """One trial with prompt and target only and, if any row has paraphrases or counter-examples, one whose requests
    carry them. Each edit has a namespace of its own. Raises InvalidRequest."""
    pairs = chosen(read(files, "pairs", selection.where, pair_of), selection, lambda pair: pair.half)
    any_given = any(pair.paraphrases or pair.counter_examples for pair in pairs)
    return [_trial(pairs, ticked=ticked) for ticked in ((False, True) if any_given else (False,))]


def _trial(pairs: Sequence[Pair], *, ticked: bool) -> Trial:
    edits = [
        EditSpec(
            namespace=f"pair-{at}-ticked" if ticked else f"pair-{at}",
            messages=turn(pair.prompt),
            target=pair.target,
            paraphrases=pair.paraphrases if ticked else (),
            counter_examples=pair.counter_examples if ticked else (),
        )
        for at, pair in enumerate(pairs)
    ]
    questions = [
        question
        for at, (pair, wanted) in enumerate(zip(pairs, edits, strict=True))
        for question in questions_about(at, wanted, [*map(turn, pair.same)], [*map(turn, pair.other)], pair.kind)
    ]
    return Trial(name=TICKED if ticked else ALONE, edits=edits, questions=questions)
