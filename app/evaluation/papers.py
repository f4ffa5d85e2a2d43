"""Edits scored as the papers of the editors score them: by token match under teacher forcing, and little else.

Reliability is the share of an edit's target tokens that are likeliest after its prompt and the target's tokens before
them; generality is the same after its paraphrases; locality is the share of tokens of the bare model's own answer, to a
prompt that the edit is not about, that are still the likeliest. Each is a mean over what is asked. Whole answers that
the model generates freely stand beside, since token match says little about them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from app.evaluation.asking import Asking
from app.evaluation.candidates import Candidate, Made
from app.evaluation.cases import Case
from app.evaluation.forced import locality_match, token_match
from app.evaluation.measuring import Extent, Outcome, alike, cost_of, not_carried, standing_of
from app.evaluation.scores import tally

LOCAL_TOKENS = 8
"""Of the bare model's answer, how many are scored for locality: the papers score an answer of a few words."""

Keep = Callable[[str, Mapping[str, Any]], None]
"""Takes a part of the figures by its name as soon as it is measured."""


class PapersMeasuring:
    """The papers' figures after all edits. `known` are the parts that were measured before an interruption."""

    def __init__(
        self, candidate: Candidate, asking: Asking, given: int, extent: Extent, known: Mapping[str, Any], keep: Keep
    ) -> None:
        self._candidate, self._asking, self._given, self._extent = candidate, asking, given, extent
        self._known, self._keep = dict(known), keep

    async def at(self, outcomes: Sequence[Outcome], *, last: bool) -> dict[str, Any]:
        standing = standing_of(outcomes)
        cases = [outcome.case for outcome in standing]
        parts: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "reliability": lambda: self._reliability(cases),
            "generality": lambda: self._generality(cases),
            "locality": lambda: self._locality(cases),
            "exact": lambda: self._exact(standing),
        }
        figures: dict[str, Any] = {
            "edits": len(outcomes),
            "refused": sum(outcome.refused for outcome in outcomes),
            "asked": len(standing),
            "locality": {},
            "SR": tally(outcome.right for outcome in outcomes),
            "GR": tally(right for outcome in outcomes for right in outcome.paraphrases),
            **cost_of(outcomes, self._candidate.held_bytes),
        }
        for name, measure in parts.items():
            key = f"{len(outcomes)}/{name}"
            if key not in self._known:
                self._known[key] = await measure()
                self._keep(key, self._known[key])
            figures |= self._known[key]
        return figures

    async def _reliability(self, cases: Sequence[Case]) -> dict[str, Any]:
        return {"token_match": await token_match(self._candidate, [(case.prompt, case.target) for case in cases])}

    async def _generality(self, cases: Sequence[Case]) -> dict[str, Any]:
        asked = [
            (prompt, case.target)
            for case in cases
            for prompt in not_carried(case, self._given)[: self._extent.paraphrases]
        ]
        return {"generality_asked": len(asked), "generality_token_match": await token_match(self._candidate, asked)}

    async def _locality(self, cases: Sequence[Case]) -> dict[str, Any]:
        edited = {alike(prompt) for case in cases for prompt in (case.prompt, *case.paraphrases)}
        found = (prompt for case in cases for _, prompt in case.untouched[: self._extent.untouched])
        prompts = [prompt for prompt in dict.fromkeys(found) if alike(prompt) not in edited]
        answers = await self._asking.answers(prompts, edits="off", max_new_tokens=LOCAL_TOKENS)
        matched = await locality_match(self._candidate, self._asking, list(zip(prompts, answers, strict=True)))
        return {"locality_asked": len(prompts), "locality_token_match": matched}

    async def _exact(self, standing: Sequence[Outcome]) -> dict[str, Any]:
        answers = await self._candidate.answers([outcome.case.prompt for outcome in standing])
        return {
            "exact": tally(outcome.is_right(answer) for answer, outcome in zip(answers, standing, strict=True)),
            "answers": [
                {"prompt": outcome.case.prompt, "target": outcome.case.target, "answer": answer}
                for outcome, answer in zip(standing[:20], answers, strict=False)
            ],
        }


async def scored_directly(
    candidate: Candidate, cases: Sequence[Case], made: Sequence[Made], given: int
) -> list[Outcome]:
    """Each edit and its paraphrases directly after it was made: right where every target token is the likeliest."""
    asked = [(prompt, case.target) for case in cases for prompt in (case.prompt, *not_carried(case, given))]
    right = iter([each is not None and each.likeliest == each.tokens for each in await candidate.scores(asked)])
    return [
        Outcome(
            case=case, made=each, right=next(right), paraphrases=tuple(next(right) for _ in not_carried(case, given))
        )
        for case, each in zip(cases, made, strict=True)
    ]
