"""All figures at one number of edits: every earlier edit is asked again, and so is everything that should not have
changed."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from app.domain.words import collapse_spaces
from app.evaluation.candidates import ROUNDS, Candidate
from app.evaluation.cases import Case
from app.evaluation.outcomes import Outcome, cost_of, not_carried, not_superseded
from app.evaluation.questioner import Questioner, perplexity
from app.evaluation.scores import Tally, is_exact, tally
from app.evaluation.slices import paraphrase_slice, slices_of
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

AGE_GROUPS = 10
"""Number of age groups of edits, oldest first, in which retention is reported."""
FIRST_EDITS = 100
"""Number of first edits that have a figure of their own."""
MODES: Mapping[str, Mapping[str, float | int]] = {
    "temperature 1": {"temperature": 1.0},
    "temperature 1, top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "repetition penalty 1.2": {"repetition_penalty": 1.2},
    "presence and frequency penalty 1": {"presence_penalty": 1.0, "frequency_penalty": 1.0},
}
QUESTIONS_PER_SLICED_EDIT = 8
"""Approximate number of questions that the slices ask about an edit."""
WORDS = 100
"""Maximum number of words given of a generic text (at most half of it), and of words scored after them."""


class Measurement:
    """Measures one candidate. `held_out` holds prompts of cases that are never edited, `unrelated` these or others that
    no edit is about, `texts` generic texts."""

    def __init__(
        self, candidate: Candidate, questioner: Questioner, held_out: Sequence[str], unrelated: Sequence[str],
        texts: Sequence[str], given: int, extent: QuestionLimits, seed: int, time_limit: TimeLimit | None = None,
        on_figures: SoFar = no_one,
    ) -> None:  # fmt: skip
        self._candidate, self._questioner = candidate, questioner
        self._held_out, self._unrelated, self._texts = list(held_out), list(unrelated), texts
        self._given, self._extent, self._seed = given, extent, seed
        self._time_limit, self._on_figures = time_limit or TimeLimit(), on_figures
        self.so_far: dict[str, Any] | None = None
        """Figures measured so far; left behind when `at` is cancelled."""

    async def at(self, outcomes: Sequence[Outcome], *, last: bool) -> dict[str, Any]:
        """The figures after these edits, in order. If time is short, `fitted` maps parts to the share of questions that
        they asked, and `incomplete` lists parts left out."""
        figures = self.without_asking(outcomes)
        self.so_far = figures
        await measured_in_time(
            self._time_limit, self._parts(outcomes, last=last), self._extent, figures, self._on_figures
        )
        if "exact" in figures:  # the names used by GRACE and Transformer-Patcher
            figures["ERR"] = figures["ER"] = figures["exact"]
        if "locality" in figures:
            figures["TRR"] = figures["locality"].get("unrelated")
        self.so_far = None
        return figures

    def without_asking(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Figures known from making the edits, without asking anything."""
        present = not_superseded(outcomes)
        return {
            "edits": len(outcomes),
            "refused": sum(outcome.made.problem is not None for outcome in outcomes),
            "superseded": len(outcomes) - len(present),
            "replaced_unnamed": sum(len(outcome.made.replaced) for outcome in outcomes),
            "SR": tally(outcome.right and not outcome.refused for outcome in outcomes),
            "GR": tally(right and not outcome.refused for outcome in outcomes for right in outcome.paraphrases),
            **cost_of(outcomes, self._candidate.held_bytes),
        }

    def questions(self, outcomes: Sequence[Outcome]) -> float:
        """Number of questions that all figures ask after these edits."""
        return sum(part.questions(self._extent) for part in self._parts(outcomes, last=True))

    def _parts(self, outcomes: Sequence[Outcome], *, last: bool) -> list[FigureGroup]:
        """The parts in order of importance: if time is short, the last ones are left out."""
        rng = random.Random(f"{self._seed}/{len(outcomes)}")
        present = sample = not_superseded(outcomes)
        if len(present) > self._extent.edits:
            sample = sorted(rng.sample(present, self._extent.edits), key=present.index)
        first, everyone = present[:FIRST_EDITS], [outcome.case for outcome in present]

        def count(extent: QuestionLimits) -> int:
            return min(extent.edits, len(sample))

        def some(extent: QuestionLimits) -> list[Outcome]:
            return spread(sample, extent.edits)

        def rephrased(extent: QuestionLimits) -> int:
            return sum(min(extent.paraphrases, len(not_carried(o.case, self._given))) for o in some(extent))

        def untouched(extent: QuestionLimits) -> int:
            return sum(min(extent.untouched, len(o.case.untouched)) for o in some(extent))

        async def reliability(extent: QuestionLimits) -> dict[str, Any]:
            return {"asked": count(extent), **await self._reliability(some(extent))}

        async def locality(extent: QuestionLimits) -> dict[str, Any]:
            return await self._locality(everyone, [outcome.case for outcome in some(extent)], extent, rng)

        async def of_first(extent: QuestionLimits) -> dict[str, Any]:
            early = spread(first, extent.edits)
            answers = await self._candidate.answers([outcome.case.prompt for outcome in early])
            return {"first_100": tally(outcome.is_right(a) for a, outcome in zip(answers, early, strict=True))}

        async def modes(extent: QuestionLimits) -> dict[str, Any]:
            return {"modes": await self._modes(sample[: extent.modes])}

        async def overhead(extent: QuestionLimits) -> dict[str, Any]:
            return {"overhead": await self._candidate.overhead(self._unrelated[: extent.overhead])}

        parts = [
            FigureGroup("reliability", lambda e: question_cost(count(e)) + SCORED * count(e), reliability),
            FigureGroup(
                "generality",
                lambda e: question_cost(rephrased(e)) + SCORED * rephrased(e),
                lambda e: self._generality(some(e)),
            ),
            FigureGroup(
                "locality",
                lambda e: (
                    2 * question_cost(untouched(e) + min(e.unrelated, len(self._unrelated))) + 2 * SCORED * untouched(e)
                ),
                locality,
            ),
            FigureGroup("the first 100", lambda e: question_cost(min(e.edits, len(first))), of_first),
            FigureGroup("perplexity", lambda e: 2 * SCORED * min(e.texts, len(self._texts)), self._perplexity),
        ]
        if last:
            parts += [
                FigureGroup(
                    "slices",
                    lambda e: question_cost(QUESTIONS_PER_SLICED_EDIT * min(e.modes, len(sample))),
                    lambda e: self._slices(sample[: e.modes]),
                ),
                FigureGroup("modes", lambda e: (len(MODES) + 1) * question_cost(min(e.modes, len(sample))), modes),
                FigureGroup(
                    "overhead", lambda e: 2 * ROUNDS * question_cost(min(e.overhead, len(self._unrelated))), overhead
                ),
            ]
        return parts

    async def _reliability(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        answers = await self._candidate.answers([outcome.case.prompt for outcome in outcomes])
        right = [outcome.is_right(answer) for answer, outcome in zip(answers, outcomes, strict=True)]
        holds = (outcome.is_contained(answer) for answer, outcome in zip(answers, outcomes, strict=True))
        by_source: dict[str, Tally] = defaultdict(Tally)
        for outcome, each in zip(outcomes, right, strict=True):
            by_source[outcome.case.source].add(each)
        return {
            "exact": tally(right),
            "exact_by_source": {name: each.as_json() for name, each in sorted(by_source.items())},
            "contains": tally(holds),
            "token_match": await token_match(self._candidate, [(o.case.prompt, o.case.target) for o in outcomes]),
            "retention": [tally(some)["share"] for some in _tenths(right)],
            "failed": [
                {
                    "case": outcome.case.id,
                    "prompt": outcome.case.prompt,
                    "target": outcome.case.target,
                    "answer": answer,
                    "problem": outcome.made.problem,
                }
                for outcome, answer, ok in zip(outcomes, answers, right, strict=True)
                if not ok
            ][:50],
        }

    async def _generality(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        paraphrased = [(o, p) for o in outcomes for p in not_carried(o.case, self._given)[: self._extent.paraphrases]]
        answers = await self._candidate.answers([prompt for _, prompt in paraphrased])
        right = [outcome.is_right(answer) for answer, (outcome, _) in zip(answers, paraphrased, strict=True)]
        slices: dict[str, Tally] = defaultdict(Tally)
        for (outcome, prompt), ok in zip(paraphrased, right, strict=True):
            slices[paraphrase_slice(outcome.case, prompt)].add(ok)
        holds = (outcome.is_contained(answer) for answer, (outcome, _) in zip(answers, paraphrased, strict=True))
        return {
            "generality": tally(right),
            "generality_contains": tally(holds),
            "generality_token_match": await token_match(self._candidate, [(p, o.case.target) for o, p in paraphrased]),
            "generality_slices": {name: each.as_json() for name, each in sorted(slices.items())},
            "missed": [
                {
                    "case": outcome.case.id,
                    "prompt": prompt,
                    "edited": outcome.case.prompt,
                    "target": outcome.case.target,
                    "answer": answer,
                    "problem": outcome.made.problem,
                }
                for (outcome, prompt), answer, ok in zip(paraphrased, answers, right, strict=True)
                if not ok
            ][:50],
        }

    async def _locality(
        self, present: Sequence[Case], cases: Sequence[Case], extent: QuestionLimits, rng: random.Random
    ) -> dict[str, Any]:
        """Locality by kind. Prompts that some edit asks in the same words are excluded; prompts too long for the model
        are counted apart."""
        edited = {collapse_spaces(p) for case in present for p in (case.prompt, *case.paraphrases)}
        unrelated = rng.sample(self._unrelated, min(extent.unrelated, len(self._unrelated)))
        untouched = [(kind, p) for case in cases for kind, p in case.untouched[: extent.untouched]]
        untouched = [(kind, p) for kind, p in (*untouched, *(("unrelated", p) for p in unrelated))]
        untouched = [(kind, p) for kind, p in dict.fromkeys(untouched) if collapse_spaces(p) not in edited]
        prompts = [prompt for _, prompt in untouched]
        before, now = await self._questioner.bare(prompts), await self._candidate.answers(prompts)
        kinds: dict[str, Tally] = defaultdict(Tally)
        changed = []
        for (kind, prompt), b, n in zip(untouched, before, now, strict=True):
            if b is None:
                continue
            kinds[kind].add(b == n)
            if b != n:
                changed.append({"kind": kind, "prompt": prompt, "before": b, "now": n})
        own = [
            (prompt, answer) for (kind, prompt), answer in zip(untouched, before, strict=True) if kind != "unrelated"
        ]
        return {
            "locality": {kind: each.as_json() for kind, each in sorted(kinds.items())},
            "locality_token_match": await locality_match(self._candidate, self._questioner, own),
            "locality_not_asked": before.count(None),
            "changed": changed[:50],
        }

    async def _perplexity(self, extent: QuestionLimits) -> dict[str, Any]:
        pairs = [
            (" ".join(words[:half]), " ".join(words[half : half + WORDS]))
            for text in self._texts[: extent.texts]
            if (half := min(WORDS, len(words := text.split())) // 2)
        ]
        bare = await self._questioner.scores(pairs, edits="off")
        return {"perplexity": perplexity(await self._candidate.scores(pairs)), "perplexity_bare": perplexity(bare)}

    async def _slices(self, edited: Sequence[Outcome]) -> dict[str, Any]:
        cases = [outcome.case for outcome in edited]
        refused = {outcome.case.id for outcome in edited if outcome.refused}
        others = self._held_out or [prompt for case in cases for _, prompt in case.untouched]
        slices = list(slices_of(cases, others, self._questioner.service.answers.render, self._seed))
        answers = await self._candidate.answers([each.prompt for each in slices])
        bare = await self._questioner.bare([each.prompt for each in slices])
        counted: dict[str, Tally] = defaultdict(Tally)
        not_asked = 0
        for each, answer, before in zip(slices, answers, bare, strict=True):
            if each.target is None and before is None:
                not_asked += 1
            elif each.target is None:
                counted[each.slice].add(answer == before)
            else:
                counted[each.slice].add(each.case not in refused and is_exact(answer or "", each.target))
        return {"slices": {name: each.as_json() for name, each in counted.items()}, "slices_not_asked": not_asked}

    async def _modes(self, edited: Sequence[Outcome]) -> dict[str, Any]:
        """Reliability under sampling and penalties, and when the client already has the beginning of the answer and
        asks for the rest."""
        prompts = [outcome.case.prompt for outcome in edited]
        figures: dict[str, Any] = {}
        for name, how in MODES.items():
            draws = {"draw": self._seed} if "temperature" in how else {}
            answers = await self._candidate.answers(prompts, **how, **draws)
            figures[name] = tally(outcome.is_right(a) for a, outcome in zip(answers, edited, strict=True))
        begun = [(outcome, *_halves(outcome.case.target)) for outcome in edited if " " in outcome.case.target.strip()]
        answers = await self._candidate.answers([f"{outcome.case.prompt} {said}" for outcome, said, _ in begun])
        figures["continued"] = tally(
            not outcome.refused and is_exact(a or "", rest)
            for a, (outcome, _, rest) in zip(answers, begun, strict=True)
        )
        return figures


def _tenths(right: Sequence[bool]) -> list[Sequence[bool]]:
    """Splits into up to ten groups, as even as possible."""
    bounds = [at * len(right) // AGE_GROUPS for at in range(AGE_GROUPS + 1)]
    return [right[begin:end] for begin, end in pairwise(bounds) if begin < end]


def _halves(target: str) -> tuple[str, str]:
    """Splits a target between words, in the middle."""
    words = target.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
