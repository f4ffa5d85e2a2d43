"""The judge at work: examined first, asked in the band alone, and harmless where it fails."""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import InvalidRequest, QueueFull
from app.domain.generation import Signal
from app.engine.editions import ScopeDecision, UncertainDecision
from app.scope.doubt import Doubt
from app.scope.exam import ExamResults
from app.service import examined_judge as module
from app.service.examined_judge import MOST_FAILURES, REST_S, ExaminedJudge
from tests.judges import Fake, knowing
from tests.service.judges_at_work import EXAM, decision, of, qualified, run, uncertain

# -- the exam


@run
async def test_without_a_judge_nothing_is_changed() -> None:
    examined_judge = ExaminedJudge()
    assert examined_judge.known
    await examined_judge.run()
    scope_decision = uncertain(0.5)
    assert await examined_judge.settle(scope_decision) is scope_decision
    assert (examined_judge.view().judge, examined_judge.view().state, examined_judge.view().why_not) == (
        "off",
        "off",
        None,
    )


@run
async def test_a_judge_is_asked_nothing_before_it_has_passed() -> None:
    judge = Fake(knowing(EXAM, of()))
    examined_judge = ExaminedJudge(judge)
    assert not examined_judge.known
    scope_decision = uncertain(0.5)
    assert await examined_judge.settle(scope_decision) is scope_decision
    assert judge.asked == []
    view = examined_judge.view()
    assert (view.state, view.why_not) == ("sitting", "it sits its exam")
    await examined_judge.run()
    await examined_judge.settled()
    assert examined_judge.known
    assert sorted(map(repr, judge.asked)) == sorted(repr(pair.doubt) for pair in EXAM), "each pair once"
    assert (await examined_judge.settle(scope_decision)).decision is None


@run
async def test_one_that_fails_is_never_asked() -> None:
    judge = Fake(lambda doubt: 1.0 if len(doubt.question) % 2 else -1.0)
    examined_judge = ExaminedJudge(judge)
    await examined_judge.run()
    view = examined_judge.view()
    assert view.state == "failed"
    assert view.same is not None
    assert min(view.same, view.other or 0.0) < view.pass_mark
    count = len(judge.asked)
    for scope_decision in (uncertain(0.5), uncertain(-0.5, -0.7)):
        assert await examined_judge.settle(scope_decision) is scope_decision
    assert len(judge.asked) == count
    assert examined_judge.view().asked == 0


@pytest.mark.parametrize("passes", [True, False])
@run
async def test_a_result_is_kept_and_no_exam_is_sat_twice(tmp_path: Path, passes: bool) -> None:
    def answer(doubt: Doubt) -> float:
        return knowing(EXAM)(doubt) * (1.0 if passes else 0.0)

    first = ExaminedJudge(Fake(answer), ExamResults(tmp_path))
    await first.run()
    again = Fake(answer)
    second = ExaminedJudge(again, ExamResults(tmp_path))
    await second.run()
    assert len(again.asked) == passes, "one that serves is warmed up"
    assert second.view() == first.view()
    assert second.view().state == ("serving" if passes else "failed")
    another = Fake(answer, fingerprint="another")
    await ExaminedJudge(another, ExamResults(tmp_path)).run()
    assert len(another.asked) == len(EXAM)


@run
async def test_an_error_in_the_exam_breaks_the_judge_and_is_not_kept(tmp_path: Path) -> None:
    def breaks(doubt: Doubt) -> float:
        if doubt == EXAM[5].doubt:
            raise InvalidRequest("The prompt is too long.")
        return 0.0

    for answer in (breaks, lambda _: math.nan):
        examined_judge = ExaminedJudge(Fake(answer), ExamResults(tmp_path))
        await examined_judge.run()
        view = examined_judge.view()
        assert view.state == "broken"
        assert view.why_not is not None
        assert view.why_not.startswith("it could not be examined: ")
        assert await examined_judge.settle(scope_decision := uncertain(0.5)) is scope_decision
    assert list(tmp_path.iterdir()) == []


@run
async def test_the_exam_waits_while_requests_fill_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL_S", 0.0)
    full = [QueueFull("The queue is full.", retry_after_s=1)] * 3

    def answer(doubt: Doubt) -> float:
        if full:
            raise full.pop()
        return knowing(EXAM)(doubt)

    examined_judge = ExaminedJudge(Fake(answer))
    await examined_judge.run()
    assert examined_judge.view().state == "serving"


# -- decisions


@pytest.mark.parametrize("margin", [0.9, 1e-9, 0.0, -1e-9, -0.9])
@run
async def test_the_judge_decides_and_the_trace_says_so(margin: float) -> None:
    examined_judge, judge = await qualified(of("e0"))
    settled = await examined_judge.settle(uncertain(margin))
    assert settled.decision is not None
    assert settled.decision == settled.nearest
    assert settled.decision.margin == abs(margin)
    assert settled.decision.why == "near; the judge says that it asks the same (0.88)"
    assert settled.decision.signals == {"same": Signal(0.4, 0.5), "judge": Signal(0.8808, 0.5)}
    assert len(judge.asked) == 1
    assert examined_judge.view().changed == (margin < 0)

    examined_judge, _ = await qualified(of())
    settled = await examined_judge.settle(uncertain(margin))
    assert settled.decision is None
    assert settled.nearest is not None
    assert settled.nearest.margin < 0
    assert settled.nearest.why == "near; the judge says that it asks something else (0.12)"
    assert examined_judge.view().changed == (margin >= 0)
    assert settled.uncertain, "it is still told to the metrics"


@run
async def test_what_is_certain_is_not_asked() -> None:
    examined_judge, judge = await qualified(of())
    for scope_decision in (
        ScopeDecision(decision("e0", 3.0), decision("e0", 3.0)),
        ScopeDecision(None, decision("e0", -3.0)),
        ScopeDecision(),
    ):
        assert await examined_judge.settle(scope_decision) is scope_decision
    assert judge.asked == []


@pytest.mark.parametrize(
    ("meant", "answers", "asked"), [("e0", "e0", 1), ("e1", "e1", 2), ("e2", "e2", 3), ("nobody", None, 3)]
)
@run
async def test_of_several_edits_the_first_that_is_meant_answers(meant: str, answers: str | None, asked: int) -> None:
    examined_judge, judge = await qualified(of(meant))
    settled = await examined_judge.settle(uncertain(0.7, 0.2, -0.6))
    assert (settled.decision and settled.decision.edit_id) == answers
    assert settled.nearest is not None
    assert settled.nearest.edit_id == (answers or "e0")
    assert len(judge.asked) == asked
    assert examined_judge.view().changed == (answers != "e0")


@run
async def test_white_space_is_fed_as_the_edit_that_answers_wants_it() -> None:
    first, second = uncertain(0.5, 0.2).uncertain
    scope_decision = ScopeDecision(
        first.decision, first.decision, (), 1, True, (replace(first, cut=1, drops_blank=True), replace(second, cut=2))
    )
    for meant, wanted in (("e0", (1, True)), ("e1", (2, False)), ("nobody", (0, False))):
        examined_judge, _ = await qualified(of(meant))
        settled = await examined_judge.settle(scope_decision)
        assert (settled.cut, settled.drops_blank) == wanted


@run
async def test_the_same_question_has_the_same_answer_and_costs_nothing() -> None:
    examined_judge, judge = await qualified(of("e0"))
    first = await examined_judge.settle(uncertain(0.3))
    assert await examined_judge.settle(uncertain(0.3)) == first
    assert len(judge.asked) == examined_judge.view().asked == 1
    assert examined_judge.view().asked_seconds > 0


@run
async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    examined_judge, judge = await qualified(of("e0"))
    found = decision("e0", 0.5)
    for question in ("a", "b", "c", "c", "a"):
        await examined_judge.settle(
            ScopeDecision(found, found, uncertain=(UncertainDecision(found, Doubt(question, ("k",))),))
        )
    assert [doubt.question for doubt in judge.asked] == ["a", "b", "c", "a"]


# -- failures


def raising(error: Exception) -> Callable[[Doubt], float]:
    def answer(_: Doubt) -> float:
        raise error

    return answer


@pytest.mark.parametrize("margins", [(0.5,), (-0.5,), (0.5, -0.3)])
@pytest.mark.parametrize(
    "answer",
    [
        raising(QueueFull("full", retry_after_s=1)),
        raising(RuntimeError()),
        raising(MemoryError("much")),
        lambda _: math.nan,
    ],
    ids=["queue full", "no words", "memory", "not a number"],
)
@run
async def test_a_judge_that_errs_changes_nothing(
    answer: Callable[[Doubt], float], margins: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    examined_judge, _ = await qualified(answer)
    scope_decision = uncertain(*margins)
    with caplog.at_level(logging.WARNING):
        assert await examined_judge.settle(scope_decision) is scope_decision
    assert "no opinion" in caplog.text
    view = examined_judge.view()
    assert (view.asked, view.failed, view.changed, view.state) == (1, 1, 0, "serving")


@run
async def test_an_error_at_the_second_edit_changes_nothing_either() -> None:
    examined_judge, _ = await qualified(lambda doubt: -1.0 if doubt.keys[0] == "key of e0" else math.nan)
    scope_decision = uncertain(0.5, 0.3)
    assert await examined_judge.settle(scope_decision) is scope_decision


@run
async def test_a_judge_that_does_not_answer_in_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    examined_judge, judge = await qualified(of())
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    waiting: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def never(_: Doubt) -> float:
        return await waiting

    monkeypatch.setattr(judge, "logit", never)
    scope_decision = uncertain(0.5)
    assert await examined_judge.settle(scope_decision) is scope_decision
    assert waiting.cancelled(), "and is asked no longer"
    assert examined_judge.view().failed == 1


@run
async def test_one_that_fails_again_and_again_rests() -> None:
    now = [0.0]
    examined_judge, judge = await qualified(raising(RuntimeError("out of order")), clock=lambda: now[0])
    for _ in range(MOST_FAILURES + 3):
        await examined_judge.settle(uncertain(0.5))
    assert len(judge.asked) == MOST_FAILURES
    now[0] = REST_S
    await examined_judge.settle(uncertain(0.5))
    assert len(judge.asked) == MOST_FAILURES + 1


@run
async def test_a_request_that_is_cancelled_is_no_failure_of_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    examined_judge, judge = await qualified(of())
    begun, never = asyncio.Event(), asyncio.Event()

    async def slow(_: Doubt) -> float:
        begun.set()
        await never.wait()
        return 0.0

    monkeypatch.setattr(judge, "logit", slow)
    task = asyncio.create_task(examined_judge.settle(uncertain(0.5)))
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert examined_judge.view().failed == 0
    monkeypatch.undo()
    assert (await examined_judge.settle(uncertain(0.5))).decision is None, "its turn was given back"
