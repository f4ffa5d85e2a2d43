"""Routes for readers' verdicts on answers: applications submit them; people who correct list and delete them.
Independent of the pages."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Path, Query

from app.api.deps import Asker
from app.api.metrics import Metrics
from app.api.openapi import raises
from app.api.schemas.base import Namespace
from app.api.schemas.feedback import FeedbackBody, FeedbackOut, FeedbackTaken, ReportedOut
from app.api.schemas.scope import ForgottenOut
from app.domain.errors import RequestCancelled, UnknownAnswer, UnknownReport

if TYPE_CHECKING:
    from app.service.service import Service

Id = Annotated[str, Path(max_length=64, examples=["fb_0123456789abcdef"])]
WRONG = {
    "wrong": {"value": {"request_id": "4711", "verdict": "wrong", "note": "The office moved in March"}},
    "right": {"value": {"request_id": "4711", "verdict": "right"}},
}


def routes(service: "Service", metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["edits"])

    @router.post(
        "/feedback",
        status_code=201,
        responses=raises(UnknownAnswer, RequestCancelled, body=True),
        summary="Say that an answer is wrong",
    )
    async def judge(asker: Asker, body: Annotated[FeedbackBody, Body(openapi_examples=WRONG)]) -> FeedbackTaken:
        """Records a reader's verdict on an answer, as sent by an application. Reports are kept only if the operator
        enabled them (`ERRATA_FEEDBACK`), in this server's memory, with the prompt and the answer. An answer can be
        judged for an hour after it was given."""
        if body.verdict == "right":
            service.feedback.answer(body.request_id, body.index, asker.key_id, body.namespace)
            reported = None
        else:
            reported = await service.feedback.report(body.request_id, body.index, body.note, asker, body.namespace)
        metrics.judged(body.verdict)
        return FeedbackTaken(id=None if reported is None else reported.id, kept=reported is not None)

    @router.get("/feedback", responses=raises(), summary="The answers that were reported as wrong")
    async def reported(namespace: Annotated[Namespace | None, Query()] = None) -> FeedbackOut:
        groups = service.feedback.groups(namespace)
        return FeedbackOut(
            groups=[[ReportedOut.of(each) for each in group] for group in groups],
            kept=service.feedback.count(),
            at_most=service.feedback.most,
        )

    @router.delete("/feedback", responses=raises(), summary="Delete all reported answers")
    async def forget_reported() -> ForgottenOut:
        """Answers that could still have been reported are deleted as well."""
        return ForgottenOut(forgotten=service.feedback.forget_all())

    @router.delete("/feedback/{report_id}", responses=raises(UnknownReport), summary="Delete a reported answer")
    async def forget_one_reported(report_id: Id) -> ForgottenOut:
        """Deletes one report, for example once its answer has been corrected. The answer cannot be reported again."""
        service.feedback.forget(report_id)
        return ForgottenOut(forgotten=1)

    return router
