"""Verification: the effects of an edit, found by real generation through the serving path, before anybody else sees
it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.edit import EditRequest, edit_id_of
from app.domain.generation import Generation, GenerationParameters, Hit
from app.domain.words import same_text
from app.engine.client import EngineClient
from app.engine.controls import quoted
from app.engine.editions import Edition
from app.engine.outcome import hit_of
from app.service.pins import generation_of, scope_decisions_of
from app.service.verification_progress import counted

ROOM_TOKENS = 32
"""The tokens beyond the target's own that a verified answer may take: enough to see that it does not stop."""
BEFORE_TOKENS = 16
"""The least number of tokens that are generated of the answer before an edit."""
MOST_SHOWN = 20
"""The most changed answers that a report shows in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The bounds that an edit must reach to be committed: shares of the prompts asked, from 0 to 1."""

    paraphrases: float = 1.0
    """The share of the given paraphrases that answer the target."""
    made: float = 0.0
    """The share of the made paraphrases that answer the target; with 0 they are only reported."""
    unchanged: float = 1.0
    """The share of probes (the namespace's and the request's) and counter-examples that answer as before."""
    live_edits: float = 1.0
    """The share of prompts of the nearest live edits that answer as before."""
    recent: float = 0.0
    """The share of recent prompts that answer as before; with 0 they are only reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPrompts:
    """An edit's surroundings: the further prompts on which it is verified, by kind."""

    made: Sequence[str] = ()
    probes: Sequence[str] = ()
    """The namespace's probes."""
    live: Mapping[str, str] = field(default_factory=dict)
    """Maps a prompt to the id of a live edit about the same subject."""
    recent: Sequence[str] = ()
    misses: Sequence[str] = ()
    """Questions that the server made from the edit's and that ask something else."""
    frames: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The edit's question in other frames than its own, by their names."""
    preview: bool = False
    """True if the report shall give the answer and the distance of each prompt."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`report` is for the requester; `problems` say in words what failed; `overruns` are live edits whose prompts it
    would answer."""

    after: str
    report: Mapping[str, Any]
    problems: tuple[str, ...]
    overruns: tuple[str, ...] = ()
    silent_in: tuple[str, ...] = ()
    """The frames in whose scope it is, but in which its target was not given."""

    @property
    def passed(self) -> bool:
        return not self.problems


class Verifier:
    """Generates under editions and trials with a limited share of the engine. `thresholds` are by namespace, `*` for
    others."""

    def __init__(self, engine: EngineClient, share: int, thresholds: Mapping[str, Thresholds] | None = None) -> None:
        self._engine = engine
        self._share = asyncio.Semaphore(share)
        self._thresholds = thresholds or {}

    def thresholds(self, namespace: str) -> Thresholds:
        return self._thresholds.get(namespace) or self._thresholds.get("*") or Thresholds()

    async def answer(self, prompt: str, edition: Edition, target: str) -> Generation:
        """The greedy answer, to its natural end, or to well beyond the target's length."""
        text = self._engine.text
        room = self._engine.max_tokens - len(text.encode(prompt))
        wanted = len(text.encode_target("?", target)) + ROOM_TOKENS  # a probe together with this target may be too long
        return await self._generate(prompt, edition, min(room, wanted))

    async def answer_before(self, request: EditRequest, edition: Edition, *, whole: bool) -> Generation:
        """The prompt's answer before an edit: as long as its target, with a minimum. With `whole`, as long as `answer`
        looks, for a preview that shows the change."""
        if whole:
            return await self.answer(request.prompt, edition, request.target)
        text = self._engine.text
        room = self._engine.max_tokens - len(text.encode(request.prompt))
        wanted = max(BEFORE_TOKENS, len(text.encode_target("?", request.target)))
        return await self._generate(request.prompt, edition, min(room, wanted))

    async def _generate(self, prompt: str, edition: Edition, count: int) -> Generation:
        parameters = GenerationParameters(max_new_tokens=count, namespace=edition.namespace)
        with counted():
            async with self._share:
                return await generation_of(self._engine, prompt, parameters, edition, edition.revision)

    async def first_token(self, prompt: str, edition: Edition) -> Generation:
        """One token, which is enough to know which edit answers."""
        return await self._generate(prompt, edition, 1)

    async def answers(self, prompts: Sequence[str], edition: Edition, target: str) -> list[Generation]:
        return list(await asyncio.gather(*(self.answer(prompt, edition, target) for prompt in prompts)))

    async def verify(
        self,
        request: EditRequest,
        edit_id: str,
        base: Edition,
        trial: Edition,
        beside: VerificationPrompts | None = None,
        now: Edition | None = None,
    ) -> Verdict:
        """Verify an edit: the prompt and its paraphrases must answer the target, and all other prompts must answer as
        before.

        `now` is the edition that requests see, if `base` lacks an edit that they see.
        """
        beside = beside or VerificationPrompts()
        bounds = self.thresholds(request.namespace)
        untouched = tuple(dict.fromkeys((*request.probes, *request.counter_examples, *beside.probes)))
        asked = (request.prompt, *request.paraphrases, *beside.made)
        generations, changed, overrun, reached, missed_by, silent_in = await asyncio.gather(
            self.answers(asked, trial, request.target),
            self._changed(untouched, base, trial, request.target),
            self._changed(tuple(beside.live), base, trial, request.target),
            self.blast_radius(beside.recent, edit_id, now or base, trial, request.target),
            self._answered_by(frozenset((edit_id,)), beside.misses, trial),
            self._silent_in(beside.frames, edit_id, trial, request.target),
        )
        after, wrong = (
            generations[0],
            [p for p, g in zip(asked, generations, strict=True) if not same_text(g.text, request.target)],
        )
        missed = [prompt for prompt in request.paraphrases if prompt in wrong]
        unmade = [prompt for prompt in beside.made if prompt in wrong]
        problems: list[str] = []
        if not same_text(after.text, request.target):
            problems.append(f"the prompt is answered {after.text!r}, not {request.target!r}")
        if _share(missed, request.paraphrases) < bounds.paraphrases:
            problems.extend(f"the paraphrase {quoted(prompt)} is not answered with the target" for prompt in missed)
        if _share(unmade, beside.made) < bounds.made:
            problems.append(f"{len(unmade)} of {len(beside.made)} made paraphrases are not answered with the target")
        if _share(changed, untouched) < bounds.unchanged:
            problems.extend(f"the answer to {quoted(prompt)} would change" for prompt in changed)
        if _share(overrun, beside.live) < bounds.live_edits:
            problems.extend(
                f"the edit {beside.live[prompt]} would no longer answer {quoted(prompt)}" for prompt in overrun
            )
        if _share(reached, beside.recent) < bounds.recent:
            problems.append(f"{len(reached)} of {len(beside.recent)} recent prompts would be answered otherwise")
        report: dict[str, Any] = {
            "exact": same_text(after.text, request.target),
            "finish_reason": after.finish_reason,
            "answered_by": [hit.edit_id for hit in after.hits] == [edit_id],
            **bound_of(after, edit_id),
            "paraphrases": _counted(request.paraphrases, missed, "missed"),
            "unchanged": _counted(untouched, changed, "changed"),
        }
        if beside.frames:
            report["frames"] = _counted(dict.fromkeys(beside.frames, ""), silent_in, "defers_in")
        if beside.made:
            report["made"] = _counted(beside.made, unmade, "missed")
        if beside.misses:
            report["near_misses"] = {"asked": len(beside.misses), "answered": list(missed_by)}
        if beside.live:
            report["live_edits"] = _counted(beside.live, [beside.live[prompt] for prompt in overrun], "changed")
        if beside.recent:
            report["recent"] = {"asked": len(beside.recent), "changed": len(reached), "shown": reached[:MOST_SHOWN]}
        if beside.preview:
            report["asked"] = await self._prompt_reports(
                request, edit_id, trial, beside, dict(zip(asked, generations, strict=True))
            )
        return Verdict(
            after.said, report, tuple(problems), tuple(beside.live[prompt] for prompt in overrun), tuple(silent_in)
        )

    async def _silent_in(
        self, frames: Mapping[str, Sequence[str]], edit_id: str, trial: Edition, target: str
    ) -> list[str]:
        """The frames that the edit reaches and in which its target is not given."""

        async def holds(prompt: str) -> bool:
            text = self._engine.text
            count = len(text.encode_target("?", target)) + 1
            room = self._engine.max_tokens - len(text.encode(prompt))
            if room < count:
                return True  # too long to be asked and answered
            answer = await self._generate(prompt, trial, count)
            return edit_id_of(edit_id) not in {hit.edit_id for hit in answer.not_given}

        held = await asyncio.gather(*(holds(prompt) for prompts in frames.values() for prompt in prompts))
        names = [name for name, prompts in frames.items() for _ in prompts]
        return list(dict.fromkeys(name for name, good in zip(names, held, strict=True) if not good))

    async def _prompt_reports(
        self,
        request: EditRequest,
        edit_id: str,
        trial: Edition,
        beside: VerificationPrompts,
        generations: dict[str, Generation],
    ) -> list[dict[str, Any]]:
        """For each of the edit's prompts: its kind, its answer under the trial, whether the edit gave it, and how near
        it is to the edit, whether or not another edit is nearer."""
        kinds = (
            ("prompt", (request.prompt,)),
            ("paraphrase", request.paraphrases),
            ("made", beside.made),
            ("counter_example", request.counter_examples),
            ("near_miss", beside.misses),
        )
        asked = {prompt: kind for kind, prompts in reversed(kinds) for prompt in prompts}
        further = [prompt for prompt in asked if prompt not in generations]
        answers = dict(zip(further, await self.answers(further, trial, request.target), strict=True)) | generations
        alone = Edition(trial.namespace, trial.revision, (edit_id,))
        near = dict(zip(asked, await scope_decisions_of(self._engine, list(asked), alone), strict=True))
        found = []
        for kind, prompts in kinds:
            for prompt in (each for each in prompts if asked[each] == kind):
                hit = hit_of(near[prompt].decision or near[prompt].nearest)
                same = None if hit is None else hit.signals.get("same")
                found.append(
                    {
                        "kind": kind,
                        "prompt": prompt,
                        "answer": answers[prompt].said,
                        "reached": [each.edit_id for each in answers[prompt].hits] == [edit_id],
                        "same": None if same is None else {"value": same.value, "bound": same.bound},
                        "why": "" if hit is None else hit.why,
                    }
                )
        return found

    async def _changed(self, prompts: Sequence[str], base: Edition, trial: Edition, target: str) -> list[str]:
        before, now = await asyncio.gather(self.answers(prompts, base, target), self.answers(prompts, trial, target))
        return [p for p, b, n in zip(prompts, before, now, strict=True) if b.text != n.text]

    async def blast_radius(
        self, prompts: Sequence[str], edit_id: str, base: Edition, trial: Edition, target: str
    ) -> list[dict[str, Any]]:
        """The prompts that the edit would answer, with their answers, and those answered now by edits that it replaces.
        One token each shows which it would reach."""
        reached = await self._answered_by(frozenset((edit_id,)), prompts, trial)
        if prompts and (gone := _ids(base) - _ids(trial)):
            reached = {**await self._answered_by(gone, prompts, base), **reached}
        hit = list(reached.items())
        before, now = await asyncio.gather(
            self.answers([prompt for prompt, _ in hit], base, target),
            self.answers([prompt for prompt, _ in hit], trial, target),
        )
        return [
            {
                "prompt": prompt,
                "before": b.said,
                "now": n.said,
                "signals": {name: {"value": s.value, "bound": s.bound} for name, s in found.signals.items()},
            }
            for (prompt, found), b, n in zip(hit, before, now, strict=True)
            if b.text != n.text
        ]

    async def _answered_by(self, ids: frozenset[str], prompts: Sequence[str], edition: Edition) -> dict[str, Hit]:
        """The prompts that one of these edits answers. Only those for which the scope index names one are generated,
        unless an editor decides scope itself."""
        if all(self._engine.capabilities(self._engine.editor_of(i)).scoped for i in edition.edit_ids):
            found = await scope_decisions_of(self._engine, prompts, edition)
            named = (None if each.decision is None else each.decision.edit_id for each in found)
            prompts = [p for p, i in zip(prompts, named, strict=True) if i is not None and edit_id_of(i) in ids]
        first = await asyncio.gather(*(self.first_token(prompt, edition) for prompt in prompts))
        hits = {p: hit for p, g in zip(prompts, first, strict=True) for hit in g.reached}
        return {p: hit for p, hit in hits.items() if hit.edit_id in ids}


def _ids(edition: Edition) -> frozenset[str]:
    return frozenset(map(edit_id_of, edition.edit_ids))


def bound_of(answer: Generation, edit_id: str) -> dict[str, float]:
    """The probability that a question must reach to be answered by an edit; empty for an edit without such a bound."""
    found = {hit.edit_id: hit.signals.get("same") for hit in answer.reached}.get(edit_id)
    return {} if found is None else {"bound": round(found.bound, 4)}


def _share(wrong: Sequence[Any], asked: Sequence[str] | Mapping[str, str]) -> float:
    return 1 - len(wrong) / len(asked) if asked else 1.0


def _counted(asked: Sequence[str] | Mapping[str, str], wrong: Sequence[str], name: str) -> dict[str, Any]:
    return {"asked": len(asked), "right": len(asked) - len(wrong), name: list(wrong)}
