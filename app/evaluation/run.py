"""Takes one candidate through all edits: edits, asks, and measures at each step. Resumes where its journal ends."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from app.domain.errors import InvalidRequest
from app.domain.progress import OnStep
from app.engine.serving_engine import ServingEngine
from app.evaluation.candidates import BareModel, Candidate, EditAttempt, RequestContents, ServedEditor, known_candidates
from app.evaluation.cases import Case
from app.evaluation.journal import Journal
from app.evaluation.measurement import Measurement
from app.evaluation.outcomes import Outcome, not_carried
from app.evaluation.papers import PaperMeasurement, scored_directly
from app.evaluation.questioner import Questioner
from app.evaluation.scores import is_exact
from app.evaluation.semantic_cache import SemanticCache
from app.evaluation.time_limit import QuestionLimits, SoFar, TimeLimit
from app.scope.bank import load_bank
from app.scope.encoder import Encoder, find_encoder
from app.service.service import Service

STEPS = (1, 10, 100, 1_000, 10_000)
ROOM_TOKENS = 32
"""Tokens allowed per answer beyond the longest target."""
MIN_ANSWER_TOKENS = 64
RUN_ON_TOKENS = 8
"""Like ROOM_TOKENS for the papers' figures: enough to see that an answer goes on past its target."""

PROBE = 16
"""Number of questions that estimate the cost of a question, if time is limited."""

Keep = Callable[[list[dict[str, Any]]], None]
"""Callback with the figures at each checkpoint so far; unfinished ones have `incomplete`."""


def _no_one(_: list[dict[str, Any]]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """An evaluation. `held_out` holds prompts of cases that are not edited, `texts` generic texts.

    Without held-out prompts, `generic` questions serve as questions that no edit is about.
    """

    cases: Sequence[Case]
    held_out: Sequence[str]
    texts: Sequence[str]
    generic: Sequence[str] = ()
    batch: int = 1
    steps: Sequence[int] = STEPS
    contents: RequestContents = field(default_factory=RequestContents)
    extent: QuestionLimits = field(default_factory=QuestionLimits)
    seed: int = 0
    papers: bool = False
    """True if only the papers' figures are measured."""

    def checkpoints(self) -> list[int]:
        """Numbers of edits after which everything is measured, always including the last."""
        return sorted({step for step in self.steps if step < len(self.cases)} | {len(self.cases)})


def make_candidate(name: str, questioner: Questioner, contents: RequestContents) -> Candidate:
    """Makes a candidate by name. Raises InvalidRequest for an unknown name."""
    check_candidate(name)
    if name == "bare":
        return BareModel(questioner)
    if name == "cache":
        relations = sorted({prompt.relation for prompt in load_bank()})[::3]  # enough to set a threshold
        bank = [prompt for prompt in load_bank() if prompt.relation in relations]
        return SemanticCache(questioner, Encoder(find_encoder("minilm")), bank)
    editor, _, preset = name.partition("/")
    return ServedEditor(questioner, editor, preset or "serving", contents)


def check_candidate(name: str) -> None:
    if name not in known_candidates():
        raise InvalidRequest(f"There is no editor {name!r} to evaluate: use {', '.join(known_candidates())}.")


async def run_candidate(
    name: str,
    plan: EvaluationPlan,
    service: Service,
    journal: Journal,
    on_step: OnStep,
    keep: Keep = _no_one,
    time_limit: TimeLimit | None = None,
) -> list[dict[str, Any]]:
    """-> the figures at each checkpoint. Raises InvalidRequest for a journal of other edits, or one that has passed an
    unmeasured checkpoint.

    If `time_limit` runs out, fewer edits are made and the last checkpoint follows them. What takes longer than was
    predicted is ended, and the figures at hand are returned. When cancelled, it keeps what it has.
    """
    time_limit = time_limit or TimeLimit()
    lines = journal.lines()
    outcomes = _outcomes([line for line in lines if line["kind"] == "edit"], plan.cases)
    figures = {line["edits"]: line for line in lines if line["kind"] == "figures"}
    _check_not_passed(plan, len(outcomes), figures)
    longest = await longest_target(service, [case.target for case in plan.cases])
    questioner = Questioner(
        service, longest + RUN_ON_TOKENS if plan.papers else max(MIN_ANSWER_TOKENS, longest + ROOM_TOKENS)
    )
    candidate = make_candidate(name, questioner, plan.contents)
    if committed := [outcome.case for outcome in outcomes if outcome.made.edit_id is not None]:
        await candidate.restore(committed)

    def kept(part: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        goals = [figures[goal] for goal in (*plan.checkpoints(), len(outcomes)) if goal in figures]
        unique = list({each["edits"]: each for each in goals}.values())
        return unique if part is None else [*unique, dict(part)]

    def so_far(part: dict[str, Any]) -> None:
        on_step(f"{name}: {_summary(part)}", len(outcomes), last)
        keep(kept(part))

    time_limit.begin()
    measuring = (
        _papers(plan, candidate, questioner, journal, lines, time_limit, so_far)
        if plan.papers
        else _whole(plan, candidate, questioner, time_limit, so_far)
    )
    last = len(plan.cases)

    def stopped() -> list[dict[str, Any]]:
        """The figures at hand, where a run is ended between two edits or questions."""
        if not outcomes or len(outcomes) in figures:
            return kept()
        return kept(measuring.so_far or measuring.without_asking(outcomes) | {"incomplete": ["every question"]})

    async def work() -> list[dict[str, Any]]:
        if time_limit.bounded:
            await _probe(questioner, plan.held_out or plan.generic or [plan.cases[0].prompt], time_limit)
        for goal in plan.checkpoints():
            reached = await _edit_up_to(goal, name, plan, candidate, measuring, outcomes, journal, on_step, time_limit)
            at = goal if reached else len(outcomes)
            if at not in figures:
                on_step(f"{name}: asking about {at}", at, last)
                now = {"kind": "figures", **await measuring.at(outcomes, last=not reached or goal == last)}
                if "incomplete" in now:
                    keep(kept(now))
                    return kept(now)
                figures[at] = now
                journal.add(now)
            keep(kept())
            if not reached:
                break
        on_step(name, len(outcomes), last)
        return kept()

    try:
        async with asyncio.timeout(time_limit.end_s):
            return await work()
    except asyncio.CancelledError:
        keep(stopped())
        raise
    except TimeoutError:
        return stopped()


async def _edit_up_to(
    goal: int, name: str, plan: EvaluationPlan, candidate: Candidate, measuring: Measurement | PaperMeasurement,
    outcomes: list[Outcome], journal: Journal, on_step: OnStep, time_limit: TimeLimit,
) -> bool:  # fmt: skip
    """-> whether all edits up to `goal` were made; False if time ran out first."""
    edit_s = 0.0
    for cases in _batches(plan.cases[len(outcomes) : goal], plan.batch):
        if outcomes and not time_limit.may_edit(edit_s, measuring.questions(outcomes)):
            return False
        began = time_limit.clock()
        on_step(f"{name}: editing", len(outcomes), len(plan.cases))
        made_now = await candidate.edit(cases, [_superseded(case, outcomes) for case in cases])
        ask = scored_directly if plan.papers else _ask_directly
        now = await ask(candidate, cases, made_now, plan.contents.paraphrases)
        outcomes.extend(now)
        journal.add(*map(_line, now))
        edit_s = time_limit.clock() - began
        right = sum(outcome.right and (plan.papers or not outcome.refused) for outcome in outcomes)
        what = f"{right} of {len(outcomes)} right, {edit_s / len(cases):.2f} s an edit"
        on_step(f"{name}: {what}", len(outcomes), len(plan.cases))
    return True


async def _probe(questioner: Questioner, prompts: Sequence[str], time_limit: TimeLimit) -> None:
    some = prompts[:PROBE]
    await questioner.bare(some[:1])  # warms up: the first question is slow
    began = time_limit.clock()
    await questioner.answers(some, edits="off")
    time_limit.note(len(some), time_limit.clock() - began)


def _summary(figures: Mapping[str, Any]) -> str:
    """One line with the shares measured so far."""
    forced = {
        "token match": figures.get("token_match"),
        "of paraphrases": figures.get("generality_token_match"),
        "of prompts told apart": figures.get("locality_token_match"),
    }
    shares = {
        "exact": figures.get("exact"),
        "paraphrases": figures.get("generality"),
        "first 100": figures.get("first_100"),
        **figures.get("locality", {}),
    }
    parts = [f"{name} {100 * each['share']:.1f} %" for name, each in shares.items() if each and each["asked"]]
    parts += [f"{name} {100 * share:.1f} %" for name, share in forced.items() if share is not None]
    return f"after {figures['edits']} edits: {', '.join(parts)}"


def _whole(
    plan: EvaluationPlan, candidate: Candidate, questioner: Questioner, time_limit: TimeLimit, so_far: SoFar
) -> Measurement:
    return Measurement(
        candidate, questioner, plan.held_out, plan.held_out or plan.generic, plan.texts, plan.contents.paraphrases,
        plan.extent, plan.seed, time_limit, so_far,
    )  # fmt: skip


def _papers(
    plan: EvaluationPlan, candidate: Candidate, questioner: Questioner, journal: Journal,
    lines: Sequence[Mapping[str, Any]], time_limit: TimeLimit, so_far: SoFar,
) -> PaperMeasurement:  # fmt: skip
    """The papers' measuring, resumed with the parts that the journal holds."""
    known = {line["part"]: line["figures"] for line in lines if line["kind"] == "part"}

    def keep(name: str, figures: Mapping[str, Any]) -> None:
        journal.add({"kind": "part", "part": name, "figures": figures})

    return PaperMeasurement(
        candidate, questioner, plan.contents.paraphrases, plan.extent, known, keep, time_limit, so_far
    )


def _check_not_passed(plan: EvaluationPlan, edits: int, figures: Mapping[int, object]) -> None:
    """Raises InvalidRequest if a checkpoint has been passed unmeasured: it can no longer be asked."""
    passed = [goal for goal in plan.checkpoints() if goal < edits and goal not in figures]
    if passed:
        raise InvalidRequest(
            f"The folder's run has made {edits} edits and was not measured after {', '.join(map(str, passed))}: leave "
            "these out of --step, or name another folder."
        )


async def longest_target(service: Service, targets: Sequence[str]) -> int:
    """Number of tokens of the longest target that the model can take; longer ones are refused later."""
    return max(await asyncio.wrap_future(service.on_engine(partial(_target_tokens, targets))))


def _target_tokens(targets: Sequence[str], engine: ServingEngine) -> Iterable[int]:
    lengths = [0]
    for target in targets:
        with suppress(InvalidRequest):
            lengths.append(len(engine.text.encode_target("?", target)))
    return lengths


def _batches(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    """Batches of at most `size` cases, none together with a case that it corrects."""
    waiting = iter(cases)
    while batch := list(islice(waiting, size)):
        part: list[Case] = []
        for case in batch:
            if any(case.overwrites == each.id or case.prompt == each.prompt for each in part):
                yield part
                part = []
            part.append(case)
        yield part


def _superseded(case: Case, outcomes: Sequence[Outcome]) -> list[str]:
    if case.overwrites is None:
        return []
    wanted = [o for o in outcomes if case.overwrites in (o.case.id, o.case.overwrites)]  # it and its other corrections
    return [outcome.made.edit_id for outcome in wanted if outcome.made.edit_id is not None]


async def _ask_directly(
    candidate: Candidate, cases: Sequence[Case], attempts: Sequence[EditAttempt], given: int
) -> list[Outcome]:
    """Asks each edit and its paraphrases directly after it was made."""
    prompts = [prompt for case in cases for prompt in (case.prompt, *not_carried(case, given))]
    answers = iter(await candidate.answers(prompts))
    return [
        Outcome(
            case=case,
            made=each,
            right=is_exact(next(answers) or "", case.target),
            paraphrases=tuple(is_exact(next(answers) or "", case.target) for _ in not_carried(case, given)),
        )
        for case, each in zip(cases, attempts, strict=True)
    ]


def _line(outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": "edit",
        "case": outcome.case.id,
        "made": asdict(outcome.made),
        "right": outcome.right,
        "paraphrases": list(outcome.paraphrases),
    }


def _outcomes(lines: Sequence[Mapping[str, Any]], cases: Sequence[Case]) -> list[Outcome]:
    if len(lines) > len(cases):
        raise InvalidRequest(
            f"The folder's run made {len(lines)} edits, and this one has {len(cases)}: its files or options have "
            "changed. Name another folder."
        )
    return [_outcome(line, case) for line, case in zip(lines, cases, strict=False)]


def _outcome(line: Mapping[str, Any], case: Case) -> Outcome:
    if line["case"] != case.id:
        raise InvalidRequest(
            f"The folder's run edited {line['case']} where this one edits {case.id}: its files or options have "
            "changed. Name another folder."
        )
    return Outcome(
        case=case, made=EditAttempt(**line["made"]), right=line["right"], paraphrases=tuple(line["paraphrases"])
    )
