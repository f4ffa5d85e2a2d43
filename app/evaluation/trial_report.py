"""Figures of trials as a table: a row per figure, a column per trial of an editor. Knows no terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.evaluation.kinds import Kind
from app.evaluation.report import table
from app.evaluation.verdicts import ALL

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Editor -> the figures of each of its trials."""
ROWS: Mapping[Kind, Mapping[str, str]] = {
    "support": {
        "edited/exact": "the prompt itself, answered with the target",
        "edited/reached": "the prompt itself, its edit answers",
        "same/exact": "utterances of the intent, answered with the target",
        "same/reached": "utterances of the intent, its edit answers",
        "same/by_another": "utterances of the intent, another edit answers",
        "other/reached": "other utterances, an edit answers",
    },
    "pairs": {
        "edited/exact": "the prompt itself, answered with the target",
        "same/exact": "rephrasings, answered with the target",
        "same/reached": "rephrasings, the edit answers",
        "other/exact": "adjacent questions, answered with the target",
        "other/reached": "adjacent questions, the edit answers",
    },
    "conversations": {
        "edited/exact": "the conversation itself, answered with the target",
        "same/exact": "right histories, answered with the target",
        "same/reached": "right histories, the edit answers",
        "other/exact": "wrong histories, answered with the target",
        "other/left_alone": "wrong histories, left alone",
    },
}


def rows_of(kind: Kind, results: Results) -> tuple[list[str], list[list[str]]]:
    """-> headings and rows: figures over all questions first, then by group."""
    columns = [(editor, figures) for editor, trials in results.items() for figures in trials]
    rows = [
        ["edits", *(str(figures["edits"]) for _, figures in columns)],
        ["refused edits", *(str(figures["refused"]) for _, figures in columns)],
    ]
    by_group: list[list[str]] = []
    for name, label in ROWS[kind].items():
        groups = {group for _, figures in columns for group in figures["shares"].get(name, ())}
        for group in sorted(groups):
            shares = [_share(figures["shares"].get(name, {}).get(group)) for _, figures in columns]
            if group == ALL:
                rows.append([label, *shares])
            elif not name.startswith("edited"):
                by_group.append([f"{label}: {group}", *shares])
    if any(figures["not_asked"] for _, figures in columns):
        rows.append(["too long to be asked, not counted", *(str(figures["not_asked"]) for _, figures in columns)])
    rows.extend(by_group)
    return ["", *(f"{editor}, {figures['trial']}" for editor, figures in columns)], rows


def notes_of(results: Results) -> list[str]:
    """One line per trial that ended early."""
    return [
        f"{editor}, {figures['trial']}: incomplete, {missing['edits']} edits were not made and {missing['questions']} "
        "questions not asked."
        for editor, trials in results.items()
        for figures in trials
        if (missing := figures.get("incomplete"))
    ]


def markdown(kind: Kind, results: Results) -> str:
    return "\n\n".join([table(*rows_of(kind, results)), *notes_of(results)]) + "\n"


def _share(tally: Mapping[str, Any] | None) -> str:
    return "" if not tally or tally["share"] is None else f"{100 * tally['share']:.1f} % of {tally['asked']}"
