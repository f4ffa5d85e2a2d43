"""Outcomes of edits: which were superseded later, which paraphrases count, and what the edits cost. Runs no model."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.words import collapse_spaces
from app.evaluation.candidates import EditAttempt
from app.evaluation.cases import Case
from app.evaluation.scores import contains, is_exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A case after its edit: the edit's result, and what was answered directly afterwards (SR and GR)."""

    case: Case
    made: EditAttempt
    right: bool
    paraphrases: tuple[bool, ...]

    @property
    def refused(self) -> bool:
        """True if the edit was refused; then nothing counts as right, even if the bare model gives the target."""
        return self.made.problem is not None

    def is_right(self, answer: str | None) -> bool:
        return not self.refused and is_exact(answer or "", self.case.target)

    def is_contained(self, answer: str | None) -> bool:
        return not self.refused and contains(answer or "", self.case.target, self.case.old)


def not_carried(case: Case, given: int) -> tuple[str, ...]:
    """Paraphrases that the request did not contain, neither among its first `given` ones nor word for word."""
    given_texts = {collapse_spaces(text) for text in (case.prompt, *case.paraphrases[:given])}
    return tuple(text for text in case.paraphrases[given:] if collapse_spaces(text) not in given_texts)


def not_superseded(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Edits that no later edit has superseded, whether by name, by the same prompt or by a conflict. Rejected edits are
    kept and counted as failures."""
    replaced = {edit_id for outcome in outcomes for edit_id in outcome.made.replaced}
    corrected: dict[str | None, int] = {}
    last_of_prompt: dict[str, int] = {}
    for at, outcome in enumerate(outcomes):
        if outcome.made.problem is None:
            corrected[outcome.case.overwrites] = last_of_prompt[collapse_spaces(outcome.case.prompt)] = at
    corrected.pop(None, None)
    return [
        outcome
        for at, outcome in enumerate(outcomes)
        if outcome.case.id not in corrected
        and outcome.made.edit_id not in replaced
        and corrected.get(outcome.case.overwrites, at) <= at
        and last_of_prompt.get(collapse_spaces(outcome.case.prompt), at) <= at
    ]


def cost_of(outcomes: Sequence[Outcome], held_bytes: int) -> dict[str, Any]:
    attempts = [outcome.made for outcome in outcomes if outcome.made.edit_id is not None]
    editors: dict[str, int] = defaultdict(int)
    for each in attempts:
        editors[each.editor or "cache"] += 1
    edited = [each for each in attempts if each.editor is not None]  # a cache fits nothing and has no log
    return {
        "seconds_median": statistics.median(each.seconds for each in edited) if edited else None,
        "seconds_mean": statistics.mean(each.seconds for each in edited) if edited else None,
        "fit_seconds_mean": statistics.mean(each.fit_s for each in edited) if edited else None,
        "stored_bytes": statistics.mean(each.stored_bytes for each in edited) if edited else None,
        "held_bytes": held_bytes,
        "editors": dict(editors),
    }
