"""Scores edits as the editors' papers do: by token match under teacher forcing, and little else.

Reliability is the share of an edit's target tokens that are likeliest after its prompt and the preceding target tokens.
Generality is the same after its paraphrases. Locality is the share of tokens of the bare model's own answer to an
unrelated prompt that are still the likeliest. Each is a mean over everything asked. Freely generated answers are
reported beside them, since token match says little about those.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from app.domain.words import collapse_spaces
from app.evaluation.candidates import Candidate, EditAttempt
from app.evaluation.cases import Case
from app.evaluation.outcomes import Outcome, cost_of, not_carried, not_superseded
from app.evaluation.questioner import Questioner
from app.evaluation.scores import tally
from app.evaluation.teacher_forcing import locality_match, token_match
from app.evaluation.time_limit import (
    SCORED,
    FigureGroup,
    QuestionLimits,
    SoFar,
    TimeLimit,
    measured_in_time,
    no_one,
    question_cost,
    spread,
)

LOCAL_TOKENS = 8
"""Number of tokens of the bare model's answer that are scored for locality: the papers score answers of a few words."""

Measure = Callable[[QuestionLimits], Awaitable[dict[str, Any]]]
Keep = Callable[[str, Mapping[str, Any]], None]
"""Callback (part name, figures), called as soon as a part is measured."""


class PaperMeasurement:
    """The papers' figures. `known` holds parts measured before an interruption, except those cut short for want of
    time."""

    def __init__(
        self,
        candidate: Candidate,
        questioner: Questioner,
        given: int,
        extent: QuestionLimits,
        known: Mapping[str, Any],
        keep: Keep,
        time_limit: TimeLimit | None = None,
        on_figures: SoFar = no_one,
    ) -> None:
        self._candidate, self._questioner, self._given, self._extent = candidate, questioner, given, extent
        self._known, self._keep = dict(known), keep
        self._time_limit, self._on_figures = time_limit or TimeLimit(), on_figures
        self.so_far: dict[str, Any] | None = None
        """Figures measured so far; left behind when `at` is cancelled."""

    async def at(self, outcomes: Sequence[Outcome], *, last: bool) -> dict[str, Any]:
        """The figures after these edits; `last` makes no difference. `fitted` and `incomplete` report what time was too
        short for."""
        self.so_far = figures = self.without_asking(outcomes)
        parts = []
        for part in self._parts(outcomes):
            if (key := _key(outcomes, part.name)) in self._known:
                figures |= self._known[key]
            else:
                parts.append(part)
        await measured_in_time(self._time_limit, parts, self._extent, figures, self._on_figures)
        self.so_far = None
        return figures

    def without_asking(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Figures known from making the edits, without asking anything."""
        return {
            "edits": len(outcomes),
            "refused": sum(outcome.refused for outcome in outcomes),
            "locality": {},
            "SR": tally(outcome.right for outcome in outcomes),
            "GR": tally(right for outcome in outcomes for right in outcome.paraphrases),
            **cost_of(outcomes, self._candidate.held_bytes),
        }

    def questions(self, outcomes: Sequence[Outcome]) -> float:
        """Number of questions that all figures ask after these edits."""
        return sum(part.questions(self._extent) for part in self._parts(outcomes))

    def _parts(self, outcomes: Sequence[Outcome]) -> list[FigureGroup]:
        present = not_superseded(outcomes)
        edited = {collapse_spaces(prompt) for each in present for prompt in (each.case.prompt, *each.case.paraphrases)}

        def some(extent: QuestionLimits) -> list[Outcome]:
            return spread(present, extent.edits)

        def rephrased(extent: QuestionLimits) -> list[tuple[str, str]]:
            return [
                (prompt, each.case.target)
                for each in some(extent)
                for prompt in not_carried(each.case, self._given)[: extent.paraphrases]
            ]

        def untouched(extent: QuestionLimits) -> list[str]:
            prompts = (prompt for each in some(extent) for _, prompt in each.case.untouched[: extent.untouched])
            return [prompt for prompt in dict.fromkeys(prompts) if collapse_spaces(prompt) not in edited]

        def part(name: str, questions: Callable[[QuestionLimits], float], measure: Measure) -> FigureGroup:
            async def measured(extent: QuestionLimits) -> dict[str, Any]:
                figures = await measure(extent)
                if extent == self._extent:
                    self._known[_key(outcomes, name)] = figures
                    self._keep(_key(outcomes, name), figures)
                return figures

            return FigureGroup(name, questions, measured)

        return [
            part("reliability", lambda e: SCORED * len(some(e)), lambda e: self._reliability(some(e))),
            part("generality", lambda e: SCORED * len(rephrased(e)), lambda e: self._generality(rephrased(e))),
            part(
                "locality",
                lambda e: question_cost(n := len(untouched(e))) + 2 * SCORED * n,
                lambda e: self._locality(untouched(e)),
            ),
            part("exact", lambda e: question_cost(len(some(e))), lambda e: self._exact(some(e))),
        ]

    async def _reliability(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        pairs = [(outcome.case.prompt, outcome.case.target) for outcome in outcomes]
        return {"asked": len(outcomes), "token_match": await token_match(self._candidate, pairs)}

    async def _generality(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        return {"generality_asked": len(pairs), "generality_token_match": await token_match(self._candidate, pairs)}

    async def _locality(self, prompts: Sequence[str]) -> dict[str, Any]:
        answers = await self._questioner.answers(prompts, edits="off", max_new_tokens=LOCAL_TOKENS)
        matched = await locality_match(self._candidate, self._questioner, list(zip(prompts, answers, strict=True)))
        return {"locality_asked": len(prompts), "locality_token_match": matched}

    async def _exact(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        answers = await self._candidate.answers([outcome.case.prompt for outcome in outcomes])
        return {
            "exact": tally(outcome.is_right(answer) for answer, outcome in zip(answers, outcomes, strict=True)),
            "answers": [
                {"prompt": outcome.case.prompt, "target": outcome.case.target, "answer": answer}
                for outcome, answer in zip(outcomes[:20], answers, strict=False)
            ],
        }


def _key(outcomes: Sequence[Outcome], part: str) -> str:
    return f"{len(outcomes)}/{part}"


async def scored_directly(
    candidate: Candidate, cases: Sequence[Case], attempts: Sequence[EditAttempt], given: int
) -> list[Outcome]:
    """Scores each edit and its paraphrases directly after it was made: right if every target token is the likeliest."""
    pairs = [(prompt, case.target) for case in cases for prompt in (case.prompt, *not_carried(case, given))]
    right = iter([each is not None and each.likeliest == each.tokens for each in await candidate.scores(pairs)])
    return [
        Outcome(
            case=case, made=each, right=next(right), paraphrases=tuple(next(right) for _ in not_carried(case, given))
        )
        for case, each in zip(cases, attempts, strict=True)
    ]
