"""The exam that a judge takes before it serves: pairs of questions that were written for it, with the right answers.

Half of the pairs settle where the judge's scale is cut, as each model leans to yes or no in its own way; what it
reaches on the other half is its result. Near and far in wording are balanced, so that counting words in common passes
nobody.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.scope.doubt import Doubt

FILE = "exam_v1.jsonl"
PASS_MARK = 0.85
"""The accuracy that a judge must reach on each of the two classes, of which the reported half has 48 pairs each.

At the edge of the band the index itself is right with a chance of .73. A judge that is no better passes one class by
luck with a chance of .03, and both with .001.
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExamPair:
    """One pair of the exam. `same` is true if the doubt's question asks the same, and `wording` is the number of words
    that it shares with the edit's."""

    doubt: Doubt
    same: bool
    wording: Literal["near", "far"]
    half: Literal["settle", "report"]


class ExamMistake(BaseModel):
    """A pair that a judge got wrong. `same` is true if the question asks the same as the known one, which the judge
    denied."""

    model_config = ConfigDict(strict=True, frozen=True)

    known: str
    question: str
    same: bool


class ExamResult(BaseModel):
    """A judge's result. `same` and `other` are its accuracies on the two classes of the reported half."""

    model_config = ConfigDict(strict=True, frozen=True)

    judge: str
    same: float = Field(ge=0, le=1)
    other: float = Field(ge=0, le=1)
    cut: float = Field(allow_inf_nan=False)
    """The logit from which on the judge is taken to say that a question asks the same."""
    pairs: int = Field(ge=1)
    """The number of all pairs, including those that set the cut."""
    seconds: float = Field(ge=0)
    wrong: list[ExamMistake]

    @property
    def passed(self) -> bool:
        return min(self.same, self.other) >= PASS_MARK


@lru_cache(maxsize=1)
def load_exam() -> tuple[ExamPair, ...]:
    """Load the exam that ships. Its lines alternate between the two halves."""
    pairs: list[ExamPair] = []
    lines = (files("app.scope") / FILE).read_text(encoding="utf-8").splitlines()
    for at, row in enumerate(map(json.loads, lines)):
        half: Literal["settle", "report"] = "report" if at % 2 else "settle"
        keys, counter = (row["ask"], *row.get("paraphrases", ())), tuple(row.get("counter_examples", ()))
        for same, questions in ((True, row["same"]), (False, row["other"])):
            for wording in ("near", "far"):
                pairs.append(ExamPair(Doubt(questions[wording], keys, counter), same, wording, half))
    return tuple(pairs)


def graded(judge: str, exam: Sequence[ExamPair], logits: Sequence[float], seconds: float) -> ExamResult:
    """Grade a judge's logits, one for each pair of the exam. Each half needs pairs of both classes."""
    answered = list(zip(exam, logits, strict=True))
    cut = best_cut([(pair.same, logit) for pair, logit in answered if pair.half == "settle"])
    reported = [(pair, logit) for pair, logit in answered if pair.half == "report"]
    wrong = [pair for pair, logit in reported if (logit >= cut) != pair.same]

    def accuracy(same: bool) -> float:
        of = [pair.same for pair, _ in reported].count(same)
        return 1 - [pair.same for pair in wrong].count(same) / of

    return ExamResult(
        judge=judge,
        same=round(accuracy(True), 4),
        other=round(accuracy(False), 4),
        cut=cut,
        pairs=len(exam),
        seconds=round(seconds, 3),
        wrong=[ExamMistake(known=p.doubt.keys[0], question=p.doubt.question, same=p.same) for p in wrong],
    )


def best_cut(answered: Sequence[tuple[bool, float]]) -> float:
    """The cut of a scale, midway between two logits, that maximises the lower of the two classes' accuracies."""
    levels = sorted({logit for _, logit in answered if math.isfinite(logit)})
    if not levels:
        return 0.0
    cuts = [levels[0] - 1.0, *((a + b) / 2 for a, b in pairwise(levels)), levels[-1] + 1.0]

    def worse(cut: float) -> float:
        right = [same for same, logit in answered if (logit >= cut) == same]
        of = [same for same, _ in answered]
        return min(right.count(each) / of.count(each) for each in (True, False))

    most = max(map(worse, cuts))
    good = [cut for cut in cuts if worse(cut) == most]
    return good[len(good) // 2]


class ExamResults:
    """Results that are kept between starts, by everything that they depend on. `folder` None keeps nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def load(self, fingerprint: str) -> ExamResult | None:
        """The stored result; None if the exam has not been taken or its file cannot be read."""
        file = self._file(fingerprint)
        if file is None:
            return None
        try:
            return ExamResult.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _log.warning("%s cannot be read, and the exam is sat again: %s", file, error)
            return None

    def store(self, fingerprint: str, result: ExamResult) -> None:
        """Write the result, as a whole or not at all. If the folder cannot be written, the next start takes the exam
        again."""
        file = self._file(fingerprint)
        if file is None:
            return
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(result.model_dump_json(indent=1), encoding="utf-8")
            part.replace(file)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            _log.warning("%s cannot be written, and the exam will be sat again: %s", file, error)

    def _file(self, fingerprint: str) -> Path | None:
        if self._folder is None:
            return None
        mark = hashlib.sha256(f"{fingerprint}\n{_exam_mark()}".encode()).hexdigest()
        return self._folder / f"judge-exam-{mark[:24]}.json"


def _exam_mark() -> str:
    return hashlib.sha256((files("app.scope") / FILE).read_bytes()).hexdigest()
