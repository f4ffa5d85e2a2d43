"""What readers say of answers: taken from applications, listed for people who correct, deleted. Knows no page."""

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
        """For applications: their readers' verdicts. Kept only where the operator turned it on (`ERRATA_FEEDBACK`), in
        this server's memory, with the prompt and the answer; an answer can be judged for an hour."""
        if body.verdict == "right":
            service.feedback.answer(body.request_id, body.index)
            found = None
        else:
            found = await service.feedback.report(body.request_id, body.index, body.note, asker)
        metrics.judged(body.verdict)
        return FeedbackTaken(id=None if found is None else found.id, kept=found is not None)

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
        """The answers that could be reported go with them."""
        return ForgottenOut(forgotten=service.feedback.forget_all())

    @router.delete("/feedback/{report_id}", responses=raises(UnknownReport), summary="Delete a reported answer")
    async def forget_one_reported(report_id: Id) -> ForgottenOut:
        """It is seen to."""
        service.feedback.forget(report_id)
        return ForgottenOut(forgotten=1)

    return router
