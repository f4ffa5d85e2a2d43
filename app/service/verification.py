"""Verification: the effects of an edit, found by real generation through the serving path, before anybody else sees
it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.domain.edit import EditRequest, edit_id_of
from app.domain.generation import Generation, Hit
from app.domain.words import same_text
from app.engine.client import EngineClient
from app.engine.controls import quoted
from app.engine.editions import Edition
from app.engine.outcome import hit_of
from app.service.generation_path import scope_decisions_of
from app.service.trial_answers import TrialAnswers, TrialPrompt, whole

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
    """An edit's neighbourhood: the further prompts on which it is verified, by kind."""

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
    """True if the report is to give the answer and the distance of each prompt."""


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
    before: str | None = None
    """The prompt's answer without the edit, if it was asked for."""

    @property
    def passed(self) -> bool:
        return not self.problems


class Verifier:
    """Verifies edits under trials. `thresholds` are by namespace, `*` for others."""

    def __init__(
        self, engine: EngineClient, answers: TrialAnswers, thresholds: Mapping[str, Thresholds] | None = None
    ) -> None:
        self._engine, self._answers = engine, answers
        self._thresholds = thresholds or {}

    def thresholds(self, namespace: str) -> Thresholds:
        return self._thresholds.get(namespace) or self._thresholds.get("*") or Thresholds()

    async def verify(
        self,
        request: EditRequest,
        edit_id: str,
        base: Edition,
        trial: Edition,
        neighbourhood: VerificationPrompts | None = None,
        now: Edition | None = None,
        *,
        note_before: bool = False,
    ) -> Verdict:
        """Verify an edit: the prompt and its paraphrases must answer the target, and all other prompts must answer as
        before.

        `now` is the edition that requests see, if `base` lacks an edit that they see. With `note_before` the verdict
        has the prompt's answer under `base`, which costs little beside the others.
        """
        neighbourhood = neighbourhood or VerificationPrompts()
        bounds, target = self.thresholds(request.namespace), request.target
        own = tuple(dict.fromkeys((request.prompt, *request.paraphrases, *neighbourhood.made)))
        untouched = tuple(dict.fromkeys((*request.probes, *request.counter_examples, *neighbourhood.probes)))
        in_other_frames = [prompt for prompts in neighbourhood.frames.values() for prompt in prompts]
        others = (*untouched, *neighbourhood.live)
        under_base, under_trial = await asyncio.gather(
            self._answers.reach((request.prompt, *others), base),
            self._answers.reach((*others, *neighbourhood.recent, *neighbourhood.misses, *in_other_frames), trial),
        )
        ids = frozenset((edit_id_of(edit_id),))
        drafted = under_base.includes(request.prompt)  # an answer of an edit, of which all costs no more than a part
        compared = [p for p in dict.fromkeys(others) if under_base.includes(p) or under_trial.includes(p)]
        recent = [prompt for prompt in neighbourhood.recent if under_trial.includes(prompt, ids)]
        misses = [prompt for prompt in neighbourhood.misses if under_trial.includes(prompt, ids)]
        framed = self._framed([p for p in in_other_frames if under_trial.includes(p, ids)], trial, target)
        said, shown, were, are, recent_reached, miss_reached, in_frames = await self._answers.ask_all(
            (
                [self._own(prompt, trial, target, whole=neighbourhood.preview or prompt == own[0]) for prompt in own],
                [self._answers.before(request, base, to_its_end=drafted or neighbourhood.preview)]
                if note_before
                else [],
                [self._answers.to_its_end(prompt, base, target) for prompt in compared],
                [self._answers.to_its_end(prompt, trial, target) for prompt in compared],
                [TrialPrompt(prompt, trial, 1) for prompt in recent],
                [TrialPrompt(prompt, trial, 1) for prompt in misses],
                framed,
            )
        )
        answers = dict(zip(own, said, strict=True))
        differ = {p for p, b, n in zip(compared, were, are, strict=True) if whole(b).text != whole(n).text}
        changed = [prompt for prompt in untouched if prompt in differ]
        overrun = [prompt for prompt in neighbourhood.live if prompt in differ]
        missed_by = _hits(misses, miss_reached, ids)
        silent = {each.prompt for each, a in zip(framed, in_frames, strict=True) if _names(whole(a).not_given) & ids}
        silent_in = [name for name, prompts in neighbourhood.frames.items() if silent.intersection(prompts)]
        reached = await self._blast_radius(
            neighbourhood.recent, _hits(recent, recent_reached, ids), now or base, trial, target
        )
        after = answers[request.prompt]
        assert after is not None, "the prompt's own answer is always whole"
        wrong = {prompt for prompt, each in answers.items() if each is None or not same_text(each.text, request.target)}
        missed = [prompt for prompt in request.paraphrases if prompt in wrong]
        unmade = [prompt for prompt in neighbourhood.made if prompt in wrong]
        problems: list[str] = []
        if not same_text(after.text, request.target):
            problems.append(f"the prompt is answered {after.text!r}, not {request.target!r}")
        if _share(missed, request.paraphrases) < bounds.paraphrases:
            problems.extend(f"the paraphrase {quoted(prompt)} is not answered with the target" for prompt in missed)
        if _share(unmade, neighbourhood.made) < bounds.made:
            problems.append(
                f"{len(unmade)} of {len(neighbourhood.made)} made paraphrases are not answered with the target"
            )
        if _share(changed, untouched) < bounds.unchanged:
            problems.extend(f"the answer to {quoted(prompt)} would change" for prompt in changed)
        if _share(overrun, neighbourhood.live) < bounds.live_edits:
            problems.extend(
                f"the edit {neighbourhood.live[prompt]} would no longer answer {quoted(prompt)}" for prompt in overrun
            )
        if _share(reached, neighbourhood.recent) < bounds.recent:
            problems.append(f"{len(reached)} of {len(neighbourhood.recent)} recent prompts would be answered otherwise")
        report: dict[str, Any] = {
            "exact": same_text(after.text, request.target),
            "finish_reason": after.finish_reason,
            "answered_by": [hit.edit_id for hit in after.hits] == [edit_id],
            **bound_of(after, edit_id),
            "paraphrases": _counted(request.paraphrases, missed, "missed"),
            "unchanged": _counted(untouched, changed, "changed"),
        }
        if neighbourhood.frames:
            report["frames"] = _counted(dict.fromkeys(neighbourhood.frames, ""), silent_in, "defers_in")
        if neighbourhood.made:
            report["made"] = _counted(neighbourhood.made, unmade, "missed")
        if neighbourhood.misses:
            report["near_misses"] = {"asked": len(neighbourhood.misses), "answered": list(missed_by)}
        if neighbourhood.live:
            report["live_edits"] = _counted(
                neighbourhood.live, [neighbourhood.live[prompt] for prompt in overrun], "changed"
            )
        if neighbourhood.recent:
            report["recent"] = {
                "asked": len(neighbourhood.recent),
                "changed": len(reached),
                "shown": reached[:MOST_SHOWN],
            }
        if neighbourhood.preview:
            report["asked"] = await self._prompt_reports(request, edit_id, trial, neighbourhood, answers)
        return Verdict(
            after.said,
            report,
            tuple(problems),
            tuple(neighbourhood.live[prompt] for prompt in overrun),
            tuple(silent_in),
            whole(shown[0]).said if shown else None,
        )

    def _own(self, prompt: str, trial: Edition, target: str, *, whole: bool) -> TrialPrompt:
        """A prompt that is to be answered with the target. Unless `whole`, it ends where it leaves the target."""
        spec = self._answers.to_its_end(prompt, trial, target)
        return spec if whole else replace(spec, target=target)

    def _framed(self, prompts: Sequence[str], trial: Edition, target: str) -> list[TrialPrompt]:
        """The prompts in other frames, if they are not too long to be asked and answered."""
        count = self._answers.length_of(target) + 1
        return [TrialPrompt(prompt, trial, count) for prompt in prompts if self._answers.room(prompt) >= count]

    async def _prompt_reports(
        self,
        request: EditRequest,
        edit_id: str,
        trial: Edition,
        neighbourhood: VerificationPrompts,
        known: Mapping[str, Generation | None],
    ) -> list[dict[str, Any]]:
        """The kind of each of the edit's prompts, its answer under the trial, whether the edit gave it, and how near it
        is to the edit, whether or not another edit is nearer. In what it is to leave alone an edit counts wherever it
        acts, even where it does not say its target."""
        kinds = (
            ("prompt", (request.prompt,)),
            ("paraphrase", request.paraphrases),
            ("made", neighbourhood.made),
            ("counter_example", request.counter_examples),
            ("near_miss", neighbourhood.misses),
        )
        kind_of = {prompt: kind for kind, prompts in reversed(kinds) for prompt in prompts}
        answers = {prompt: answer for prompt, answer in known.items() if answer is not None}
        further = [prompt for prompt in kind_of if prompt not in answers]
        specs = [self._answers.to_its_end(prompt, trial, request.target) for prompt in further]
        answers |= {prompt: whole(each) for prompt, each in zip(further, await self._answers.ask(specs), strict=True)}
        alone = Edition(trial.namespace, trial.revision, (edit_id,))
        near = dict(zip(kind_of, await scope_decisions_of(self._engine, list(kind_of), alone), strict=True))
        reports = []
        for kind, prompts in kinds:
            for prompt in (each for each in prompts if kind_of[each] == kind):
                hit = hit_of(near[prompt].decision or near[prompt].nearest)
                same = None if hit is None else hit.signals.get("same")
                answer = answers[prompt]
                acting = answer.reached if kind in ("counter_example", "near_miss") else answer.hits
                reports.append(
                    {
                        "kind": kind,
                        "prompt": prompt,
                        "answer": answer.said,
                        "reached": [each.edit_id for each in acting] == [edit_id],
                        "same": None if same is None else {"value": same.value, "bound": same.bound},
                        "why": "" if hit is None else hit.why,
                    }
                )
        return reports

    async def _blast_radius(
        self, prompts: Sequence[str], reached: Mapping[str, Hit], base: Edition, trial: Edition, target: str
    ) -> list[dict[str, Any]]:
        """The prompts that the edit would answer (`reached`), with their answers, and those answered now by edits that
        it replaces. One token each shows which."""
        if prompts and (gone := _ids(base) - _ids(trial)):
            reach = await self._answers.reach(prompts, base)
            old = [prompt for prompt in prompts if reach.includes(prompt, gone)]
            reached = {**_hits(old, await self._answers.first_tokens(old, base), gone), **reached}
        before, now = await self._answers.ask_all(
            [[self._answers.to_its_end(prompt, edition, target) for prompt in reached] for edition in (base, trial)]
        )
        return [
            {
                "prompt": prompt,
                "before": whole(b).said,
                "now": whole(n).said,
                "signals": {name: {"value": s.value, "bound": s.bound} for name, s in by.signals.items()},
            }
            for (prompt, by), b, n in zip(reached.items(), before, now, strict=True)
            if whole(b).text != whole(n).text
        ]


def _hits(prompts: Sequence[str], answers: Sequence[Generation | None], ids: frozenset[str]) -> dict[str, Hit]:
    """The prompts that one of these edits answers."""
    hits = {p: hit for p, answer in zip(prompts, answers, strict=True) for hit in whole(answer).reached}
    return {p: hit for p, hit in hits.items() if hit.edit_id in ids}


def _names(hits: Sequence[Hit]) -> set[str]:
    return {hit.edit_id for hit in hits}


def _ids(edition: Edition) -> frozenset[str]:
    return frozenset(map(edit_id_of, edition.edit_ids))


def bound_of(answer: Generation, edit_id: str) -> dict[str, float]:
    """The probability that a question must reach to be answered by an edit; empty for an edit without such a bound."""
    signal = {hit.edit_id: hit.signals.get("same") for hit in answer.reached}.get(edit_id)
    return {} if signal is None else {"bound": round(signal.bound, 4)}


def _share(wrong: Sequence[Any], prompts: Sequence[str] | Mapping[str, str]) -> float:
    return 1 - len(wrong) / len(prompts) if prompts else 1.0


def _counted(prompts: Sequence[str] | Mapping[str, str], wrong: Sequence[str], name: str) -> dict[str, Any]:
    return {"asked": len(prompts), "right": len(prompts) - len(wrong), name: list(wrong)}
