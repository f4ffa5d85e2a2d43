"""Ask and see: a question, the live answer beside the answer without edits, and the edit that answered."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app.api.errors import problem_of
from app.domain.errors import ErrataError
from app.domain.keys import Right
from app.ui.desk import Desk
from app.ui.question import AskedQuestion, answers, streamed
from app.ui.visit import Visit

EVENT_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def routes(desk: Desk) -> list[Route]:
    return [
        desk.route("/ask", Right.GENERATE, get=ask, reached=True),
        desk.route("/ask/stream", Right.GENERATE, get=stream, reached=True),
    ]


async def ask(visit: Visit) -> Response:
    """The whole page, for a browser without scripts or on a reload; htmx is given panes that fill themselves."""
    question = AskedQuestion.of(visit, visit.query)
    values: dict[str, Any] = {
        "title": "Ask and fix",
        "question": question,
        "found": None,
        "problem": None,
        "namespaces": visit.desk.known_namespaces(visit),
        "streams": False,
    }
    if visit.partial:
        return visit.page("_answers.html", **values | {"streams": bool(question.text)})
    if question.text:
        try:
            values["found"] = await answers(visit, question)
        except ErrataError as error:
            values["problem"] = problem_of(error)
    return visit.page("ask.html", **values)


async def stream(visit: Visit) -> Response:
    """Server-sent events: `live` and `base` carry text, `done` the verdict below the answers, `problem` an error."""
    question = AskedQuestion.of(visit, visit.query)
    return StreamingResponse(_events(visit, question), media_type="text/event-stream", headers=EVENT_STREAM)


async def _events(visit: Visit, question: AskedQuestion) -> AsyncIterator[str]:
    try:
        async for name, value in streamed(visit, question):
            if name == "done":
                page = visit.page("_verdict.html", found=value, question=question)
                value = {"html": bytes(page.body).decode(), "live": value["live"].said, "base": value["base"].said}
            yield _event(name, value)
    except Exception as error:
        page = visit.page("_problem.html", problem=problem_of(error), back=None)
        yield _event("problem", {"html": bytes(page.body).decode()})


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"
