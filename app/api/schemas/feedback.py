"""Request and response bodies for readers' verdicts on answers. Independent of the service."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from app.api.schemas.base import MOST_ANSWERS, Incoming, Namespace, Outgoing, Reason, utc
from app.engine.controls import plain
from app.service.feedback import ReportedAnswer

MAX_ID_CHARS = 160
"""Maximum length of a request id, including the prefix that OpenAI's routes add."""


class FeedbackBody(Incoming):
    """A reader's verdict on an answer."""

    request_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)] = Field(
        description="The `X-Request-Id` of the answer, or the `id` that OpenAI's routes give it."
    )
    verdict: Literal["wrong", "right"] = Field(
        description="`right` is only counted; `wrong` is kept for people to see."
    )
    note: Reason | None = Field(default=None, description="The reader's explanation of what is wrong with it.")
    namespace: Namespace | None = Field(
        default=None, description="The namespace of the request, where requests of several may have the same id."
    )
    index: int = Field(
        default=0, ge=0, lt=MOST_ANSWERS, description="The answer's index, for a request that has several."
    )


class FeedbackTaken(Outgoing):
    id: str | None = Field(description="Id of the reported answer; null if it is only counted.")
    kept: bool


class ReportedOut(Outgoing):
    """An answer that was reported as wrong."""

    id: str
    request_id: str
    index: int
    namespace: str
    prompt: str
    answer: str
    edits: list[str] = Field(description="The edits in whose scope its prompt was.")
    revision: int
    answered_at: datetime
    note: str | None
    actor: str = Field(description="The person who reported it.")
    key_id: str | None
    at: datetime

    @classmethod
    def of(cls, reported: ReportedAnswer) -> "ReportedOut":
        answer = reported.answer
        return cls.like(
            reported,
            answer,
            prompt=plain(answer.prompt),
            answer=answer.said,
            edits=answer.edit_ids,
            answered_at=utc(answer.at_s),
        )


class FeedbackOut(Outgoing):
    """Reported answers, grouped by similar questions: the largest group first, the newest first within each."""

    groups: list[list[ReportedOut]]
    kept: int
    at_most: int = Field(description="0: none are kept here.")
