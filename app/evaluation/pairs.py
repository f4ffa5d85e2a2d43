"""Minimal pairs: an edit, questions that ask the same, and questions that differ by little and ask something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.evaluation.choosing import Half
from app.evaluation.kinds import Choosing, chosen, half_in, read, text_in, texts_in
from app.evaluation.trials import Trial, Wanted, questions_about, turn

ALONE, TICKED = "alone", "ticked"
"""Requests of prompt and target alone; requests that carry paraphrases and counter-examples, as if they had been ticked
in a preview."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    kind: str
    """How the questions that ask something else differ."""
    prompt: str
    target: str
    same: tuple[str, ...]
    other: tuple[str, ...]
    paraphrases: tuple[str, ...]
    counter_examples: tuple[str, ...]
    """These two are what the author of the edit may tell."""
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


def trials_of(files: Sequence[Path], choosing: Choosing) -> list[Trial]:
    """One with nothing but prompt and target; one where the requests carry paraphrases and counter-examples too, if any
    row has some. Each edit has a namespace of its own. Raises InvalidRequest."""
    pairs = chosen(read(files, "pairs", choosing.where, pair_of), choosing, lambda pair: pair.half)
    told = any(pair.paraphrases or pair.counter_examples for pair in pairs)
    return [_trial(pairs, ticked=ticked) for ticked in ((False, True) if told else (False,))]


def _trial(pairs: Sequence[Pair], *, ticked: bool) -> Trial:
    edits = [
        Wanted(
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
