"""Figures as tables: a row per figure, a column per candidate, at one number of edits. Knows no terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Candidate -> its figures at each number of edits."""


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _share(*path: str) -> Callable[[Mapping[str, Any]], str]:
    def read(figures: Mapping[str, Any]) -> str:
        value: Any = figures
        for name in path:
            value = (value or {}).get(name)
        return percent(value if isinstance(value, float | int) else (value or {}).get("share"))

    return read


def _number(name: str, form: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda figures: "" if figures.get(name) is None else format(figures[name], form)


def _not_asked(figures: Mapping[str, Any]) -> str:
    """Prompts that were too long to be asked; slices add to them at the last step only."""
    return str(figures.get("locality_not_asked", 0) + figures.get("slices_not_asked", 0) or "")


def _locality_kinds(results: Results) -> list[str]:
    return sorted({kind for steps in results.values() for figures in steps for kind in figures.get("locality", {})})


def rows_of(results: Results, edits: int) -> tuple[list[str], list[list[str]]]:
    """-> headings, and a row per figure, for the candidates measured at this number of edits."""
    figures = {name: each for name, steps in results.items() for each in steps if each["edits"] == edits}
    wanted: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("refused", _number("refused", "d")),
        ("edited prompts, exact", _share("exact")),
        ("edited prompts, contain the target", _share("contains")),
        ("edited prompts, token match (teacher-forced)", _share("token_match")),
        ("paraphrases, exact", _share("generality")),
        ("paraphrases, token match (teacher-forced)", _share("generality_token_match")),
        ("prompts told apart from the edits, token match (teacher-forced)", _share("locality_token_match")),
        *((f"unchanged: {kind}", _share("locality", kind)) for kind in _locality_kinds(results)),
        ("too long to be asked, not counted", _not_asked),
        ("the first 100 edits, exact", _share("first_100")),
        ("exact directly after the edit (SR)", _share("SR")),
        ("paraphrases directly after the edit (GR)", _share("GR")),
        ("seconds an edit, median", _number("seconds_median", ".2f")),
        ("of them the fit, mean", _number("fit_seconds_mean", ".2f")),
        ("bytes an edit in the log", _number("stored_bytes", ".0f")),
        ("bytes on the device", _number("held_bytes", "d")),
        ("perplexity of generic text", _number("perplexity", ".2f")),
        ("the same, bare model", _number("perplexity_bare", ".2f")),
        ("overhead where no edit answers", _number("overhead", ".2f")),
    ]
    rows = [[label, *(read(each) for each in figures.values())] for label, read in wanted]
    return [f"after {edits} edits", *figures], [row for row in rows if any(row[1:])]


def slices_of(results: Results) -> tuple[list[str], list[list[str]]]:
    """-> headings, and a row per slice or decoding mode, after all edits; a column per candidate."""
    last = {name: steps[-1] for name, steps in results.items() if steps}
    rows: dict[str, dict[str, str]] = {}
    for name, figures in last.items():
        for group in ("exact_by_source", "generality_slices", "slices", "modes"):
            for each, counted in figures.get(group, {}).items():
                label = f"exact, of {each}" if group == "exact_by_source" else each
                rows.setdefault(label, {})[name] = f"{percent(counted['share'])} of {counted['asked']}"
    return ["slice", *last], [[each, *(shown.get(name, "") for name in last)] for each, shown in rows.items()]


def notes_of(results: Results) -> list[str]:
    """One line per candidate and step that the time limit cut down."""
    notes = []
    for name, steps in results.items():
        for figures in steps:
            at = f"{name}, after {figures['edits']} edits"
            if fitted := figures.get("fitted"):
                shares = ", ".join(f"{100 * share:.0f} % of {part}" for part, share in fitted.items())
                notes.append(f"{at}: cut down to the time limit; {shares} was measured.")
            if missing := figures.get("incomplete"):
                notes.append(f"{at}: incomplete; not measured: {', '.join(missing)}.")
    return notes


def last_steps(results: Results) -> list[int]:
    """Numbers of edits at the candidates' last measurements: a single one unless time limits made them differ."""
    return sorted({steps[-1]["edits"] for steps in results.values() if steps})


def markdown(results: Results) -> str:
    """All tables as Markdown."""
    steps = sorted({figures["edits"] for each in results.values() for figures in each})
    tables = [rows_of(results, edits) for edits in steps] + [slices_of(results)]
    parts = [table(headings, rows) for headings, rows in tables if rows]
    return "\n\n".join([*parts, *notes_of(results)]) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
