"""Previews of corrections: the jobs that try them, kept in memory, and the questions that their pages show."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.domain.edit import EditRequest
from app.domain.errors import InvalidRequest
from app.ui import words
from app.ui.correction_form import Correction
from app.ui.visit import Visit

if TYPE_CHECKING:
    from app.service.jobs import Job

MOST_KEPT = 500
"""The number of previews that are kept; the oldest is dropped for a newer one."""


@dataclass(slots=True)
class Preview:
    """A correction that is tried by a job, and the state of its publication."""

    id: str
    correction: Correction
    job_id: str
    tried: float = 1.0
    """The `widen` that it was tried with."""
    publishing: str | None = None
    """The id of the job that publishes it."""
    requests: dict[str, EditRequest] = field(default_factory=dict)
    """Maps the mark of a form to the request that it published."""


class Previews:
    """The newest previews, in this server's memory. A correction outlives its job, so that no typed text is lost."""

    def __init__(self) -> None:
        self._previews: OrderedDict[str, Preview] = OrderedDict()

    def get(self, preview_id: str) -> Preview:
        """The preview with this id. Raises InvalidRequest if it is no longer kept."""
        if preview_id not in self._previews:
            raise InvalidRequest(
                "This preview is no longer kept: the server was restarted, or many others came after it. "
                "What was published is under Edits; make the preview again from the question."
            )
        return self._previews[preview_id]

    def find(self, preview_id: str) -> Preview | None:
        return self._previews.get(preview_id)

    def keep(self, preview: Preview) -> None:
        self._previews[preview.id] = preview
        if len(self._previews) > MOST_KEPT:
            self._previews.popitem(last=False)


def border_of(bound: float, correction: Correction, preview: Preview) -> float:
    """The border as a logit: the bound of the preview unless it was dragged since."""
    return words.logit(bound) - math.log(correction.widen / preview.tried)


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A question of the preview with its tick; `wanted` is `change`, `keep` or empty."""

    text: str
    answer: str
    value: float | None
    bound: float | None
    reached: bool
    wanted: str
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def place(self) -> float:
        """The position on the strip, from 0 to 100."""
        return 0.0 if self.value is None else round((words.logit(self.value) + 6) / 12 * 100, 2)


def rows_of(visit: Visit, correction: Correction, report: Any, *, decided: bool = False) -> dict[str, list[PreviewRow]]:
    """The questions by kind, nearest first. If `decided`, the choice is final and nothing is ticked by default."""
    question, before = visit.service.answers.question, decided or correction.change_ticks or correction.keep_ticks
    rows_by_kind: dict[str, list[PreviewRow]] = {}
    for each in report.get("asked", []):
        text, same = question(each["prompt"]), each["same"]
        wanted = {"made": "change" if each["reached"] else "", "near_miss": "keep"}.get(each["kind"], "")
        if before:
            wanted = "change" if text in correction.change_ticks else "keep" if text in correction.keep_ticks else ""
        kind = each["kind"]
        if kind == "paraphrase" and text in correction.change_ticks:
            kind, wanted = "made", "change"
        if kind == "counter_example" and text in correction.keep_ticks:
            kind, wanted = "near_miss", "keep"
        row = PreviewRow(text, each["answer"], same and same["value"], same and same["bound"], each["reached"], wanted)
        rows_by_kind.setdefault(kind, []).append(row)
    for each in (report.get("recent") or {}).get("shown", []):
        same = each["signals"].get("same")
        text = question(each["prompt"])
        if text == correction.question.text:  # the question that was just asked to see its wrong answer
            continue
        wanted = "change" if text in correction.change_ticks else "keep" if text in correction.keep_ticks else ""
        diff = [{"op": "delete", "text": each["before"]}, {"op": "insert", "text": each["now"]}]
        row = PreviewRow(text, each["now"], same and same["value"], same and same["bound"], True, wanted, diff)
        rows_by_kind.setdefault("recent", []).append(row)
    return {kind: sorted(rows, key=lambda row: -(row.value or 0.0)) for kind, rows in rows_by_kind.items()}


def bound_of(job: "Job") -> float | None:
    """The probability that a question must reach, from a finished preview; None without one."""
    if job.result is None:
        return None
    return bound_in(job.result[0].results[0].view.edit.report)


def bound_in(report: Any) -> float | None:
    bound = report.get("bound") or (report.get("scope") or {}).get("bound")
    return None if bound is None else float(bound)
