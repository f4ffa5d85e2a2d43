"""Verdicts on a trial's answers: shares of questions answered as they should be, overall and by group.

It knows no service: it takes the questions, the edits' results and the answers.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.evaluation.candidates import EditAttempt
from app.evaluation.scores import Tally, is_exact
from app.evaluation.trials import Messages, Trial, TrialQuestion

ALL = "all"
MAX_LISTED = 200
"""Maximum number of questions of each sort that results list."""


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """A whole answer and the ids of the edits that gave it; with `--decisions` the text is only its first token."""

    text: str
    hits: tuple[str, ...]


def figures_of(
    trial: Trial, attempts: Sequence[EditAttempt], answers: Sequence[TrialAnswer | None], *, decisions: bool
) -> dict[str, Any]:
    """Figures over the questions asked so far: `answers` belong to the first ones, and None marks a question too
    long for the model, which is only counted.

    A refused edit answers nothing: what it should have answered counts as missed.
    """
    shares: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    listed: dict[str, list[dict[str, Any]]] = {"missed": [], "wrong": []}
    prompts = {each.edit_id: last(wanted.messages) for each, wanted in zip(attempts, trial.edits, strict=False)}
    for question, answer in zip(trial.questions, answers, strict=False):
        if answer is None:
            continue
        measured = _verdicts(trial, question, answer, attempts, decisions=decisions)
        for name, right in measured.items():
            for group in dict.fromkeys((ALL, question.group or ALL)):
                shares[name][group].add(right)
        figures = _sort_of(question, answer, measured)
        if figures is not None and len(listed[figures]) < MAX_LISTED:
            by = [prompts.get(edit_id, edit_id) for edit_id in answer.hits]
            listed[figures].append(_listed(trial, question, answer, by))
    return {
        "trial": trial.name,
        "edits": len(attempts),
        "refused": sum(each.problem is not None for each in attempts),
        "problems": [
            {"edit": last(wanted.messages), "problem": each.problem}
            for each, wanted in zip(attempts, trial.edits, strict=False)
            if each.problem is not None
        ][:MAX_LISTED],
        "asked": sum(answer is not None for answer in answers),
        "not_asked": sum(answer is None for answer in answers),
        "shares": {
            name: {group: share.as_json() for group, share in sorted(groups.items(), key=lambda item: item[0] != ALL)}
            for name, groups in shares.items()
        },
        **listed,
    }


def last(messages: Messages) -> str:
    """Text of the last turn."""
    return messages[-1]["content"]


def _verdicts(
    trial: Trial, question: TrialQuestion, answer: TrialAnswer, attempts: Sequence[EditAttempt], *, decisions: bool
) -> Mapping[str, bool]:
    """Figure -> whether the question counts as positive in it."""
    role = question.role
    if question.edit is None:
        return {f"{role}/reached": bool(answer.hits)}
    edit = attempts[question.edit]
    reached = edit.edit_id is not None and edit.edit_id in answer.hits
    exact = is_exact(answer.text, trial.edits[question.edit].target)
    if role == "other":
        verdicts = {"other/reached": bool(answer.hits), "other/left_alone": not answer.hits}
        return verdicts if decisions else {"other/exact": exact, **verdicts}
    verdicts = {f"{role}/reached": reached, f"{role}/by_another": bool(answer.hits) and not reached}
    return verdicts if decisions else {f"{role}/exact": exact and edit.problem is None, **verdicts}


def _sort_of(question: TrialQuestion, answer: TrialAnswer, measured: Mapping[str, bool]) -> str | None:
    if question.role == "other":
        return "wrong" if measured["other/reached"] or measured.get("other/exact") else None
    right = measured.get(f"{question.role}/exact", measured[f"{question.role}/reached"])
    return None if right else "missed"


def _listed(trial: Trial, question: TrialQuestion, answer: TrialAnswer, by: Sequence[str]) -> dict[str, Any]:
    wanted = None if question.edit is None else trial.edits[question.edit]
    return {
        "question": last(question.messages),
        "history": [each["content"] for each in question.messages[:-1]],
        "role": question.role,
        "group": question.group,
        "edit": None if wanted is None else last(wanted.messages),
        "answer": answer.text,
        "answered_by": list(by),
    }
