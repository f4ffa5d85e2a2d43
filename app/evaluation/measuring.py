"""All figures at one number of edits: every past edit asked again, and everything that should not have changed."""

import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from app.evaluation.asking import Asking, perplexity
from app.evaluation.candidates import Candidate, Made
from app.evaluation.cases import Case
from app.evaluation.forced import locality_match, token_match
from app.evaluation.scores import Tally, contains, is_exact, tally
from app.evaluation.slices import paraphrase_slice, slices_of

AGES = 10
"""Retention is shown by tenths of the edits, oldest first."""
FIRST = 100
"""How many of the first edits have a figure of their own."""
MODES: Mapping[str, Mapping[str, float | int]] = {
    "temperature 1": {"temperature": 1.0},
    "temperature 1, top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "repetition penalty 1.2": {"repetition_penalty": 1.2},
    "presence and frequency penalty 1": {"presence_penalty": 1.0, "frequency_penalty": 1.0},
}
WORDS = 100
"""Of a generic text: half of it, or of these, is given, and so many of the rest are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One case after its edit: what came of it, and what was answered directly afterwards (SR and GR)."""

    case: Case
    made: Made
    right: bool
    paraphrases: tuple[bool, ...]

    @property
    def refused(self) -> bool:
        """Then nothing is right, also where the model itself answers as the edit would have."""
        return self.made.problem is not None

    def is_right(self, answer: str | None) -> bool:
        return not self.refused and is_exact(answer or "", self.case.target)

    def is_contained(self, answer: str | None) -> bool:
        return not self.refused and contains(answer or "", self.case.target, self.case.old)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is asked at most."""

    edits: int = 1000
    """Edits re-asked at each step, a sample of them beyond that."""
    paraphrases: int = 3
    untouched: int = 5
    """Of each case."""
    unrelated: int = 300
    texts: int = 50
    """Generic texts whose perplexity is taken."""
    modes: int = 200
    """Edits asked by sampling, under penalties, in slices: at the last step only."""


class Measuring:
    """`held_out` are prompts of cases that are never edited, `unrelated` they or others that no edit is about; `texts`
    are generic."""

    def __init__(
        self, candidate: Candidate, asking: Asking, held_out: Sequence[str], unrelated: Sequence[str],
        texts: Sequence[str], given: int, extent: Extent, seed: int,
    ) -> None:  # fmt: skip
        self._candidate, self._asking = candidate, asking
        self._held_out, self._unrelated, self._texts = list(held_out), list(unrelated), texts
        self._given, self._extent, self._seed = given, extent, seed

    async def at(self, outcomes: Sequence[Outcome], *, last: bool) -> dict[str, Any]:
        """The figures after these edits, in their order."""
        rng = random.Random(f"{self._seed}/{len(outcomes)}")
        standing = standing_of(outcomes)
        asked = standing
        if len(standing) > self._extent.edits:
            asked = sorted(rng.sample(standing, self._extent.edits), key=standing.index)
        cases = [outcome.case for outcome in asked]
        figures: dict[str, Any] = {
            "edits": len(outcomes),
            "refused": sum(outcome.made.problem is not None for outcome in outcomes),
            "superseded": len(outcomes) - len(standing),
            "replaced_unnamed": sum(len(outcome.made.replaced) for outcome in outcomes),
            "asked": len(asked),
            **await self._reliability(asked),
            **await self._generality(asked),
            **await self._locality([outcome.case for outcome in standing], cases, rng),
            "SR": tally(outcome.right and not outcome.refused for outcome in outcomes),
            "GR": tally(right and not outcome.refused for outcome in outcomes for right in outcome.paraphrases),
            **cost_of(outcomes, self._candidate.held_bytes),
        }
        first = standing[:FIRST]
        answers = await self._candidate.answers([outcome.case.prompt for outcome in first])
        figures["first_100"] = tally(outcome.is_right(a) for a, outcome in zip(answers, first, strict=True))
        # as GRACE and Transformer-Patcher call them
        figures["ERR"] = figures["ER"] = figures["exact"]
        figures["TRR"] = figures["locality"].get("unrelated")
        figures["perplexity"], figures["perplexity_bare"] = await self._perplexity()
        if last:
            figures |= await self._slices(asked[: self._extent.modes])
            figures["modes"] = await self._modes(asked[: self._extent.modes])
            figures["overhead"] = await self._candidate.overhead(self._unrelated[:32])
        return figures

    async def _reliability(self, asked: Sequence[Outcome]) -> dict[str, Any]:
        answers = await self._candidate.answers([outcome.case.prompt for outcome in asked])
        right = [outcome.is_right(answer) for answer, outcome in zip(answers, asked, strict=True)]
        holds = (outcome.is_contained(answer) for answer, outcome in zip(answers, asked, strict=True))
        by_source: dict[str, Tally] = defaultdict(Tally)
        for outcome, each in zip(asked, right, strict=True):
            by_source[outcome.case.source].add(each)
        return {
            "exact": tally(right),
            "exact_by_source": {name: each.as_json() for name, each in sorted(by_source.items())},
            "contains": tally(holds),
            "token_match": await token_match(self._candidate, [(o.case.prompt, o.case.target) for o in asked]),
            "retention": [tally(some)["share"] for some in _tenths(right)],
            "failed": [
                {
                    "case": outcome.case.id,
                    "prompt": outcome.case.prompt,
                    "target": outcome.case.target,
                    "answer": answer,
                    "problem": outcome.made.problem,
                }
                for outcome, answer, ok in zip(asked, answers, right, strict=True)
                if not ok
            ][:50],
        }

    async def _generality(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        asked = [(o, p) for o in outcomes for p in not_carried(o.case, self._given)[: self._extent.paraphrases]]
        answers = await self._candidate.answers([prompt for _, prompt in asked])
        right = [outcome.is_right(answer) for answer, (outcome, _) in zip(answers, asked, strict=True)]
        slices: dict[str, Tally] = defaultdict(Tally)
        for (outcome, prompt), ok in zip(asked, right, strict=True):
            slices[paraphrase_slice(outcome.case, prompt)].add(ok)
        holds = (outcome.is_contained(answer) for answer, (outcome, _) in zip(answers, asked, strict=True))
        return {
            "generality": tally(right),
            "generality_contains": tally(holds),
            "generality_token_match": await token_match(self._candidate, [(p, o.case.target) for o, p in asked]),
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
                for (outcome, prompt), answer, ok in zip(asked, answers, right, strict=True)
                if not ok
            ][:50],
        }

    async def _locality(self, standing: Sequence[Case], cases: Sequence[Case], rng: random.Random) -> dict[str, Any]:
        """What an edit itself asks in the same words is not among what must stay as it was, nor what the model cannot
        take, as it is too long: that has a count of its own."""
        edited = {alike(p) for case in standing for p in (case.prompt, *case.paraphrases)}
        unrelated = rng.sample(self._unrelated, min(self._extent.unrelated, len(self._unrelated)))
        asked = [(kind, p) for case in cases for kind, p in case.untouched[: self._extent.untouched]]
        asked = [(kind, p) for kind, p in (*asked, *(("unrelated", p) for p in unrelated))]
        asked = [(kind, p) for kind, p in dict.fromkeys(asked) if alike(p) not in edited]
        prompts = [prompt for _, prompt in asked]
        before, now = await self._asking.bare(prompts), await self._candidate.answers(prompts)
        kinds: dict[str, Tally] = defaultdict(Tally)
        changed = []
        for (kind, prompt), b, n in zip(asked, before, now, strict=True):
            if b is None:
                continue
            kinds[kind].add(b == n)
            if b != n:
                changed.append({"kind": kind, "prompt": prompt, "before": b, "now": n})
        own = [(prompt, answer) for (kind, prompt), answer in zip(asked, before, strict=True) if kind != "unrelated"]
        return {
            "locality": {kind: each.as_json() for kind, each in sorted(kinds.items())},
            "locality_token_match": await locality_match(self._candidate, self._asking, own),
            "locality_not_asked": before.count(None),
            "changed": changed[:50],
        }

    async def _perplexity(self) -> tuple[float | None, float | None]:
        pairs = [
            (" ".join(words[:half]), " ".join(words[half : half + WORDS]))
            for text in self._texts[: self._extent.texts]
            if (half := min(WORDS, len(words := text.split())) // 2)
        ]
        bare = await self._asking.scores(pairs, edits="off")
        return perplexity(await self._candidate.scores(pairs)), perplexity(bare)

    async def _slices(self, edited: Sequence[Outcome]) -> dict[str, Any]:
        cases = [outcome.case for outcome in edited]
        refused = {outcome.case.id for outcome in edited if outcome.refused}
        others = self._held_out or [prompt for case in cases for _, prompt in case.untouched]
        asked = list(slices_of(cases, others, self._asking.service.answering.render, self._seed))
        answers = await self._candidate.answers([each.prompt for each in asked])
        bare = await self._asking.bare([each.prompt for each in asked])
        counted: dict[str, Tally] = defaultdict(Tally)
        not_asked = 0
        for each, answer, before in zip(asked, answers, bare, strict=True):
            if each.target is None and before is None:
                not_asked += 1
            elif each.target is None:
                counted[each.slice].add(answer == before)
            else:
                counted[each.slice].add(each.case not in refused and is_exact(answer or "", each.target))
        return {"slices": {name: each.as_json() for name, each in counted.items()}, "slices_not_asked": not_asked}

    async def _modes(self, edited: Sequence[Outcome]) -> dict[str, Any]:
        """Reliability when answers are not decoded greedily, and when a client has the beginning of the answer already
        and asks for the rest."""
        prompts = [outcome.case.prompt for outcome in edited]
        found: dict[str, Any] = {}
        for name, how in MODES.items():
            draws = {"draw": self._seed} if "temperature" in how else {}
            answers = await self._candidate.answers(prompts, **how, **draws)
            found[name] = tally(outcome.is_right(a) for a, outcome in zip(answers, edited, strict=True))
        begun = [(outcome, *_parted(outcome.case.target)) for outcome in edited if " " in outcome.case.target.strip()]
        answers = await self._candidate.answers([f"{outcome.case.prompt} {said}" for outcome, said, _ in begun])
        found["continued"] = tally(
            not outcome.refused and is_exact(a or "", rest)
            for a, (outcome, _, rest) in zip(answers, begun, strict=True)
        )
        return found


def _tenths(right: Sequence[bool]) -> list[Sequence[bool]]:
    """As even as can be, and all in all everything; of less than ten, one each."""
    bounds = [at * len(right) // AGES for at in range(AGES + 1)]
    return [right[begin:end] for begin, end in pairwise(bounds) if begin < end]


def _parted(target: str) -> tuple[str, str]:
    """At the space nearest its middle."""
    words = target.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def not_carried(case: Case, given: int) -> tuple[str, ...]:
    """Its paraphrases but for the first ones, which the request told, and for what the request says word for word."""
    told = {alike(text) for text in (case.prompt, *case.paraphrases[:given])}
    return tuple(text for text in case.paraphrases[given:] if alike(text) not in told)


def alike(prompt: str) -> str:
    """White space makes no difference between prompts."""
    return " ".join(prompt.split())


def standing_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """All but those that a later edit took the place of, by name, by its prompt, or because they were in its way. One
    that was refused stands: it fails."""
    replaced = {edit_id for outcome in outcomes for edit_id in outcome.made.replaced}
    corrected: dict[str | None, int] = {}
    asked: dict[str, int] = {}
    for at, outcome in enumerate(outcomes):
        if outcome.made.problem is None:
            corrected[outcome.case.overwrites] = asked[alike(outcome.case.prompt)] = at
    corrected.pop(None, None)
    return [
        outcome
        for at, outcome in enumerate(outcomes)
        if outcome.case.id not in corrected
        and outcome.made.edit_id not in replaced
        and corrected.get(outcome.case.overwrites, at) <= at
        and asked.get(alike(outcome.case.prompt), at) <= at
    ]


def cost_of(outcomes: Sequence[Outcome], held_bytes: int) -> dict[str, Any]:
    made = [outcome.made for outcome in outcomes if outcome.made.edit_id is not None]
    editors: dict[str, int] = defaultdict(int)
    for each in made:
        editors[each.editor or "cache"] += 1
    edited = [each for each in made if each.editor is not None]  # a cache fits nothing, and has no log
    return {
        "seconds_median": statistics.median(each.seconds for each in edited) if edited else None,
        "seconds_mean": statistics.mean(each.seconds for each in edited) if edited else None,
        "fit_seconds_mean": statistics.mean(each.fit_s for each in edited) if edited else None,
        "stored_bytes": statistics.mean(each.stored_bytes for each in edited) if edited else None,
        "held_bytes": held_bytes,
        "editors": dict(editors),
    }
