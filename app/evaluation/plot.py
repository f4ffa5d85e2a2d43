"""Plots reliability, generality and locality over the number of edits, and retention by age."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidRequest
from app.evaluation.cases import ASKS_THE_SAME
from app.evaluation.report import Results

NONE = {"share": None}
"""Stands for a figure that time was too short for."""
PANELS: tuple[tuple[str, Callable[[Any], float | None]], ...] = (
    ("Reliability: edited prompts, whole answer", lambda f: f.get("exact", NONE)["share"]),
    ("Generality: paraphrases not given", lambda f: f.get("generality", NONE)["share"]),
    ("Locality: answers that should not change", lambda f: _pooled(f.get("locality", {}))),
)


def _pooled(locality: Mapping[str, Mapping[str, int]]) -> float | None:
    counted = [each for kind, each in locality.items() if not kind.endswith(ASKS_THE_SAME)]
    total = sum(each["asked"] for each in counted)
    return sum(each["right"] for each in counted) / total if total else None


def draw(results: Results, file: Path) -> None:
    """Draws an SVG or PNG, by the file's suffix. Raises InvalidRequest without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import ScalarFormatter
    except ImportError as error:
        raise InvalidRequest("Pictures need matplotlib: pip install 'errata[eval]'.") from error
    figure: Any = Figure(figsize=(11, 7), layout="constrained")
    axes: Any = figure.subplots(2, 2).flat
    for panel, (title, read) in zip(axes, PANELS, strict=False):
        for name, steps in results.items():
            points = [(f["edits"], 100 * share) for f in steps if (share := read(f)) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", label=name)
        panel.set(title=title, xscale="log", xlabel="edits", ylabel="%", ylim=(-3, 103))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.grid(alpha=0.3)
    _retention(axes[3], {name: steps[-1] for name, steps in results.items() if steps})
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    # makes the output reproducible and keeps text as text
    with rc_context({"svg.hashsalt": "errata", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _retention(panel: Any, last: Mapping[str, Mapping[str, Any]]) -> None:
    for name, figures in last.items():
        shares: Sequence[float] = [100 * share for share in figures.get("retention", ())]
        panel.plot(range(1, len(shares) + 1), shares, marker="o", label=name)
    panel.set(title="Retention after all edits, by age", xlabel="tenth of the edits, oldest first", ylim=(-3, 103))
    panel.grid(alpha=0.3)
