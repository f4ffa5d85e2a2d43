"""The judge at work: it takes its exam in the background, and then decides questions that the index is uncertain of.

It is asked between the index's decision and the queueing of the request. A judge that fails its exam is never asked,
and one that raises an error changes nothing.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from app.domain.errors import QueueFull
from app.domain.generation import Signal
from app.editors.base import Decision
from app.engine.editions import ScopeDecision
from app.scope.doubt import Doubt, Judge
from app.scope.exam import PASS_MARK, ExamPair, ExamResult, ExamResults, graded, load_exam
from app.service.views import JudgeView

PATIENCE_S = 5.0
"""The most time for an opinion, in seconds; the request waits for it."""
MOST_FAILURES, REST_S = 3, 60.0
"""After this many failures in a row the judge is not asked for this long, in seconds: each may cost a request
PATIENCE_S."""
FULL_S = 1.0
"""The pause between two attempts of the exam at a full queue, in seconds."""
REMEMBERED = 8192
"""The number of opinions that are kept: the same question has the same answer, without asking again."""
WARM_UP = Doubt("How do I begin?", ("How does one start?",))
_log = logging.getLogger(__name__)


class ExaminedJudge:
    """The use of a judge. Without one (None) nothing is ever changed. `at_once` limits the questions asked at the same
    time."""

    def __init__(
        self,
        judge: Judge | None = None,
        results: ExamResults | None = None,
        *,
        at_once: int = 1,
        exam: Sequence[ExamPair] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judge, self._results, self._exam, self._clock = judge, results or ExamResults(), exam, clock
        self._turns = asyncio.Semaphore(at_once)
        self._exam_turns = asyncio.Semaphore(max(1, at_once // 2))
        self._result: ExamResult | None = None
        self._trouble: str | None = None
        self._sat = 0
        self._done = asyncio.Event()
        self._known: OrderedDict[Doubt, float] = OrderedDict()
        self._failures, self._rests_until = 0, -math.inf
        self._asked = self._changed = self._failed = 0
        self._seconds = 0.0

    # -- the exam

    async def run(self) -> None:
        """Load the stored result, or hold the exam. Never raises: a server does without its judge."""
        try:
            if self._judge is not None:
                await self._qualify(self._judge)
        except Exception as error:
            self._trouble = str(error) or type(error).__name__
            _log.warning("The judge %s cannot be examined, and is not asked: %s", self._name, self._trouble)
        finally:
            self._done.set()

    @property
    def known(self) -> bool:
        """True if the exam's outcome is known."""
        return self._judge is None or self._done.is_set()

    async def settled(self) -> None:
        """Wait until it is."""
        await self._done.wait()

    async def _qualify(self, judge: Judge) -> None:
        fingerprint = await asyncio.to_thread(judge.fingerprint)
        result = await asyncio.to_thread(self._results.load, fingerprint)
        if result is None:
            result = await self._sit(judge)
            await asyncio.to_thread(self._results.store, fingerprint, result)
        elif result.passed:
            await judge.logit(WARM_UP)  # so that the first request does not wait for the weights to be read
        self._result = result
        scores = (
            f"{result.same:.2f} of the same and {result.other:.2f} of the other questions, {PASS_MARK:.2f} is required"
        )
        _log.info("The judge %s %s its exam: %s.", judge.name, "passed" if result.passed else "failed", scores)

    async def _sit(self, judge: Judge) -> ExamResult:
        exam: Sequence[ExamPair] = self._exam or load_exam()
        began = self._clock()

        async def answer(pair: ExamPair) -> float:
            async with self._exam_turns:
                logit = _number(await _patiently(judge, pair.doubt))
            self._sat += 1
            return logit

        try:
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(answer(pair)) for pair in exam]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return graded(judge.name, exam, [each.result() for each in answers], self._clock() - began)

    # -- serving

    async def settle(self, scope_decision: ScopeDecision) -> ScopeDecision:
        """The index's finding after the judge has looked at its uncertain edits: the first edit that, according to the
        judge, the question asks for, or none."""
        if self._judge is None or self._result is None or not self._result.passed or not scope_decision.uncertain:
            return scope_decision
        verdict, refused, cut, drops_blank = None, None, 0, False
        for each in scope_decision.uncertain:
            logit = await self._opinion(self._judge, each.doubt)
            if logit is None:
                return scope_decision
            opinion = self._with_opinion(each.decision, logit, self._result.cut)
            if opinion.margin >= 0:
                verdict, cut, drops_blank = opinion, each.cut, each.drops_blank
                break
            refused = refused or opinion
        before, after = scope_decision.decision, verdict
        self._changed += (before and before.edit_id) != (after and after.edit_id)
        return replace(scope_decision, decision=verdict, nearest=verdict or refused, cut=cut, drops_blank=drops_blank)

    def _with_opinion(self, decision: Decision, logit: float, cut: float) -> Decision:
        chance = 1 / (1 + math.exp(-max(-30.0, min(30.0, logit - cut))))
        same = logit >= cut
        said = f"the judge says that it asks {'the same' if same else 'something else'} ({chance:.2f})"
        return replace(
            decision,
            margin=abs(decision.margin) if same else -max(abs(decision.margin), 1e-6),
            signals={**decision.signals, "judge": Signal(round(chance, 4), 0.5)},
            why=f"{decision.why}; {said}",
        )

    async def _opinion(self, judge: Judge, doubt: Doubt) -> float | None:
        """The judge's log-odds that the question asks the same; None if it raised an error or rests."""
        if (known := self._known.get(doubt)) is not None:
            self._known.move_to_end(doubt)
            return known
        if self._clock() < self._rests_until:
            return None
        until = asyncio.get_running_loop().time() + PATIENCE_S
        try:
            async with asyncio.timeout_at(until):
                await self._turns.acquire()
        except TimeoutError:
            return None  # other questions waited for it as well: that is no failure of its own
        try:
            if (known := self._known.get(doubt)) is not None or self._clock() < self._rests_until:
                return known
            logit = await self._logit_of(judge, doubt, until)
        finally:
            self._turns.release()
        if logit is None:
            return None
        self._failures = 0
        self._known[doubt] = logit
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return logit

    async def _logit_of(self, judge: Judge, doubt: Doubt, until: float) -> float | None:
        began = self._clock()
        self._asked += 1
        try:
            async with asyncio.timeout_at(until):
                return _number(await judge.logit(doubt))
        except Exception as error:
            self._fail(error)
            return None
        finally:
            self._seconds += self._clock() - began

    def _fail(self, error: Exception) -> None:
        self._failed += 1
        self._failures += 1
        _log.warning("The judge %s has no opinion: %s", self._name, str(error) or type(error).__name__)
        if self._failures >= MOST_FAILURES:
            self._failures, self._rests_until = 0, self._clock() + REST_S
            _log.warning("The judge %s failed %d times in a row and rests for %g s", self._name, MOST_FAILURES, REST_S)

    # -- its state

    @property
    def _name(self) -> str:
        return "off" if self._judge is None else self._judge.name

    def view(self) -> JudgeView:
        return JudgeView(
            judge=self._name,
            state=self._state,
            why_not=self._why_not,
            pass_mark=PASS_MARK,
            same=None if self._result is None else self._result.same,
            other=None if self._result is None else self._result.other,
            pairs=self._sat if self._result is None else self._result.pairs,
            seconds=None if self._result is None else self._result.seconds,
            wrong=() if self._result is None else tuple((w.known, w.question, w.same) for w in self._result.wrong),
            asked=self._asked,
            changed=self._changed,
            failed=self._failed,
            asked_seconds=self._seconds,
        )

    @property
    def _state(self) -> str:
        if self._judge is None:
            return "off"
        if self._trouble is not None:
            return "broken"
        if self._result is None:
            return "sitting"
        return "serving" if self._result.passed else "failed"

    @property
    def _why_not(self) -> str | None:
        reasons = {
            "sitting": "it sits its exam",
            "broken": f"it could not be examined: {self._trouble}",
            "failed": f"it failed its exam: {PASS_MARK:.2f} of both classes is required",
        }
        return reasons.get(self._state)


async def _patiently(judge: Judge, doubt: Doubt) -> float:
    """An opinion for the exam, which has time and waits while requests fill the queue."""
    while True:
        try:
            return await judge.logit(doubt)
        except QueueFull:
            await asyncio.sleep(FULL_S)


def _number(logit: float) -> float:
    if math.isnan(logit):
        raise ValueError("its opinion is not a number")
    return logit
