"""Reported answers: answers that readers called wrong, grouped by similar questions, each one click from its
correction."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response
from starlette.routing import Route

from app.domain.errors import UnknownReport
from app.domain.keys import Right
from app.service.feedback import ReportedAnswer
from app.ui.desk import HERE, Desk
from app.ui.question import MOST_QUESTION_CHARS, how_of
from app.ui.visit import Visit

MOST_SHOWN = 100
"""The number of groups on the page, the largest."""


@dataclass(frozen=True, slots=True)
class ReportedRow:
    """A reported answer with its question as a reader wrote it. `fits` says whether the correction form can hold
    it."""

    reported: ReportedAnswer
    question: str
    how: str

    @property
    def fits(self) -> bool:
        return 0 < len(self.question) <= MOST_QUESTION_CHARS

    @property
    def query(self) -> dict[str, str]:
        return {"q": self.question, "how": self.how, "namespace": self.reported.answer.namespace}


def routes(desk: Desk) -> list[Route]:
    see, edit = partial(desk.route, right=Right.READ), partial(desk.route, right=Right.EDIT)
    return [
        see("/reported", get=listing),
        edit("/reported/delete", post=delete),
        desk.route("/reported/delete-all", Right.ADMIN, post=delete_all),
    ]


async def listing(visit: Visit) -> Response:
    feedback = visit.service.feedback
    return visit.page(
        "reported.html",
        title="Reported answers",
        groups=[[_row(visit, each) for each in group] for group in feedback.groups()[:MOST_SHOWN]],
        days=f"{feedback.days:g}",
        gone=visit.query.get("gone", "")[:9],
    )


def _row(visit: Visit, reported: ReportedAnswer) -> ReportedRow:
    prompt = reported.answer.prompt
    question = visit.service.answers.question(prompt)
    return ReportedRow(reported, question, how_of(visit, prompt, question))


async def delete(visit: Visit) -> Response:
    """Delete the ticked reports. A report that somebody else has deleted meanwhile is ignored."""
    gone = 0
    for report_id in visit.form.all("id"):
        with suppress(UnknownReport):
            visit.service.feedback.forget(report_id)
            gone += 1
    return visit.to(f"{HERE}/reported", gone=gone)


async def delete_all(visit: Visit) -> Response:
    return visit.to(f"{HERE}/reported", gone=visit.service.feedback.forget_all())
