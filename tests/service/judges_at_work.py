"""Fixtures of the judge's tests: uncertain decisions of an index, and a judge that has passed its exam."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from app.domain.generation import Signal
from app.editors.base import Decision
from app.engine.editions import ScopeDecision, UncertainDecision
from app.scope.doubt import Doubt
from app.scope.exam import load_exam
from app.service.examined_judge import ExaminedJudge
from tests.judges import Fake, knowing

EXAM = load_exam()
PROMPT, TARGET, ASKED = "Who founded Lumen?", "Ada", "By whom was Lumen set up?"


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def ran(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return ran


def decision(edit_id: str, margin: float) -> Decision:
    return Decision(edit_id=edit_id, editor="grace", margin=margin, signals={"same": Signal(0.4, 0.5)}, why="near")


def uncertain(*margins: float) -> ScopeDecision:
    """The index's decision if the margins of some edits, e0 and on, lie in the uncertain band."""
    found = [decision(f"e{at}", margin) for at, margin in enumerate(margins)]
    doubts = tuple(UncertainDecision(each, Doubt("asked", (f"key of {each.edit_id}",))) for each in found)
    return ScopeDecision(found[0] if margins[0] >= 0 else None, found[0], ["asked"], uncertain=doubts)


def of(*edit_ids: str) -> Callable[[Doubt], float]:
    """Says that a question asks for these edits, and for no others."""
    keys = {f"key of {edit_id}" for edit_id in edit_ids}
    return lambda doubt: 2.0 if doubt.keys[0] in keys else -2.0


async def qualified(answer: Callable[[Doubt], float], **more: Any) -> tuple[ExaminedJudge, Fake]:
    """A judge at work that has passed its exam, and has forgotten its questions."""
    judge = Fake(knowing(EXAM, answer))
    examined_judge = ExaminedJudge(judge, **more)
    await examined_judge.run()
    assert examined_judge.view().state == "serving"
    judge.asked.clear()
    return examined_judge, judge
