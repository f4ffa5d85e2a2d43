"""Takes one editor through trials: makes its edits, then asks everything by real generation. Resumes where its journal
ends."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.domain.edit import EditRequest
from app.domain.errors import ErrataError, InvalidRequest
from app.domain.events import Origin
from app.domain.generation import GenerationParameters
from app.domain.progress import OnStep
from app.editors.registry import EDITORS
from app.evaluation.candidates import EditAttempt
from app.evaluation.journal import Journal
from app.evaluation.questioner import AT_ONCE, Questioner
from app.evaluation.run import RUN_ON_TOKENS, longest_target
from app.evaluation.trials import EditSpec, PromptRenderer, Trial, TrialQuestion
from app.evaluation.verdicts import TrialAnswer, figures_of, last
from app.service.recent_prompts import RecentPrompts
from app.service.service import Service

MAX_CONCURRENT_EDITS = 8
"""Number of edits of different namespaces that are made concurrently."""

Keep = Callable[[list[dict[str, Any]]], None]
"""Callback with the figures of each trial so far; unfinished ones have `incomplete`."""


def check_editor(name: str) -> None:
    """Raises InvalidRequest for a name that is no editor."""
    known = ["auto", *(key if preset == "serving" else f"{key}/{preset}" for key in EDITORS for preset in EDITORS[key])]
    if name not in known:
        raise InvalidRequest(f"There is no editor {name!r} for cases of this kind: use {', '.join(known)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """The trials of one editor. With `decisions`, questions are asked for one token only, which shows which edit
    answers."""

    trials: Sequence[Trial]
    template: str = "{}"
    decisions: bool = False


def renderer_for(plan: TrialPlan, service: Service) -> PromptRenderer:
    """The rendering of questions. Raises InvalidRequest for conversations if the model has no chat template."""
    renderer = PromptRenderer(service.answers.render, plan.template)
    for trial in plan.trials:
        if trial.questions:
            renderer.prompt(trial.questions[0].messages)
    return renderer


async def run_trials(
    editor: str, plan: TrialPlan, service: Service, journal: Journal, on_step: OnStep, keep: Keep
) -> list[dict[str, Any]]:
    """-> the figures of each trial. When cancelled, it keeps what it has.

    Raises InvalidRequest for a journal of other edits, and for conversations if the model has no chat template.
    """
    trying = await _TrialRun.of(editor, plan, service, journal, on_step)
    figures: list[dict[str, Any]] = []
    for trial in plan.trials:
        attempts: list[EditAttempt] = []
        answers: list[TrialAnswer | None] = []
        try:
            traffic = {space: map(trying.put, those) for space, those in trial.traffic.items()}
            with_traffic(service.recent, traffic, others=trial.others)
            await trying.edit(trial, attempts)
            await trying.ask(trial, answers)
        except asyncio.CancelledError:
            if attempts:
                part = figures_of(trial, attempts, answers, decisions=plan.decisions)
                missing = len(trial.edits) - len(attempts), len(trial.questions) - len(answers)
                keep([*figures, part | {"incomplete": {"edits": missing[0], "questions": missing[1]}}])
            raise
        figures.append(figures_of(trial, attempts, answers, decisions=plan.decisions))
        keep(figures)
    return figures


def with_traffic(recent: RecentPrompts, traffic: Mapping[str, Iterator[str]], *, others: bool) -> None:
    """Registers prompts as recent ones of their namespaces, with `others` as questions that no edit answers. Recording
    then stops, so that no question of the run is compared with itself."""
    for namespace, prompts in traffic.items():
        known = list(prompts)
        recent.most = len(known)
        for prompt in known:
            recent.add(namespace, prompt, others=others)
    recent.most = 0


class _TrialRun:
    """Makes the edits and asks the questions of one editor's trials; each is journaled once done."""

    def __init__(
        self,
        editor: str,
        service: Service,
        journal: Journal,
        on_step: OnStep,
        renderer: PromptRenderer,
        most: int,
    ) -> None:
        self._editor, self._service, self._on_step = editor, service, on_step
        self._journal, self._lines, self._renderer = journal, journal.lines(), renderer
        self.put = renderer.prompt
        self._questioner = Questioner(service, most)
        self._parameters = GenerationParameters(max_new_tokens=most)

    @classmethod
    async def of(cls, editor: str, plan: TrialPlan, service: Service, journal: Journal, on_step: OnStep) -> "_TrialRun":
        renderer = renderer_for(plan, service)
        targets = [wanted.target for trial in plan.trials for wanted in trial.edits]
        most = 1 if plan.decisions else await longest_target(service, targets) + RUN_ON_TOKENS
        return cls(editor, service, journal, on_step, renderer, most)

    async def edit(self, trial: Trial, attempts: list[EditAttempt]) -> None:
        """Makes the edits that the journal lacks; appends to `attempts`."""
        lines = self._of(trial, "edit")
        if any(line["prompt"] != last(wanted.messages) for line, wanted in zip(lines, trial.edits, strict=False)):
            raise InvalidRequest("The folder's run made other edits: its files have changed. Name another folder.")
        attempts.extend(EditAttempt(**line["made"]) for line in lines)
        for wanted in _concurrent(trial.edits[len(attempts) :]):
            first = len(attempts)
            self._say(trial, "editing", first, len(trial.edits))
            keys = (f"eval-{trial.name}-{first + at}" for at in range(len(wanted)))
            now = await asyncio.gather(*(self._make(each, key) for each, key in zip(wanted, keys, strict=True)))
            self._journal.add(
                *(
                    {"kind": "edit", "trial": trial.name, "prompt": last(each.messages), "made": asdict(one)}
                    for each, one in zip(wanted, now, strict=True)
                )
            )
            attempts.extend(now)

    async def ask(self, trial: Trial, answers: list[TrialAnswer | None]) -> None:
        """Asks the questions that the journal lacks; appends to `answers`."""
        answers.extend(_answer(line["answer"]) for line in self._of(trial, "answer"))
        while len(answers) < len(trial.questions):
            self._say(trial, "asking", len(answers), len(trial.questions))
            some = trial.questions[len(answers) : len(answers) + AT_ONCE]
            now = await asyncio.gather(*map(self._one, some))
            self._journal.add(
                *(
                    {"kind": "answer", "trial": trial.name, "answer": None if each is None else [each.text, each.hits]}
                    for each in now
                )
            )
            answers.extend(now)
        self._say(trial, "done", len(answers), len(trial.questions))

    async def _make(self, wanted: EditSpec, key: str) -> EditAttempt:
        """Makes one edit. Under the same key, an edit made before an interruption is found rather than made again."""
        request: EditRequest = self._renderer.request(wanted, self._editor)
        try:
            results = await self._service.edit([request], Origin(actor="errata eval", idempotency_key=key))
        except ErrataError as error:
            return EditAttempt(problem=f"{type(error).__name__}: {error.message}")
        (result,) = results.results
        edit = result.view.edit
        seconds = sum(result.seconds.values())
        return EditAttempt(
            edit_id=edit.id, editor=edit.editor_key, seconds=seconds, fit_s=result.seconds.get("fit", 0.0)
        )

    async def _one(self, question: TrialQuestion) -> TrialAnswer | None:
        """Asks one question; None if it is too long for the model."""
        how = replace(self._parameters, namespace=question.namespace)
        (generation,) = await self._questioner.generations([self.put(question.messages)], how)
        return (
            None
            if generation is None
            else TrialAnswer(generation.said, tuple(hit.edit_id for hit in generation.reached))
        )

    def _of(self, trial: Trial, kind: str) -> list[dict[str, Any]]:
        return [line for line in self._lines if (line["kind"], line["trial"]) == (kind, trial.name)]

    def _say(self, trial: Trial, what: str, done: int, total: int) -> None:
        self._on_step(f"{self._editor}, {trial.name}: {what}", done, total)


def _answer(line: Sequence[Any] | None) -> TrialAnswer | None:
    return None if line is None else TrialAnswer(line[0], tuple(line[1]))


def _concurrent(edits: Sequence[EditSpec]) -> Iterator[list[EditSpec]]:
    """Groups of edits that are made concurrently: edits of one namespace go one after the other, since each may
    conflict with the next."""
    some: list[EditSpec] = []
    for each in edits:
        if len(some) == MAX_CONCURRENT_EDITS or any(each.namespace == one.namespace for one in some):
            yield some
            some = []
        some.append(each)
    if some:
        yield some
