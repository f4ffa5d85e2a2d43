"""Drafts become live edits: they are fitted beside serving, verified under a trial, and committed by one append.

Until the append nothing is visible and only memory has to be released; after it the edit is live.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.domain.edit import EditRequest
from app.domain.errors import EditRejected, LostRace, of_batch
from app.domain.events import Origin
from app.domain.generation import Generation
from app.editors.base import Fitted
from app.engine.controls import quoted
from app.engine.editions import Edition
from app.service.batch_contradictions import check_ahead
from app.service.collaborators import Collaborators
from app.service.commits import Committer, preview_of
from app.service.conflicts import check_batch, check_scopes, conflict_with, in_the_way
from app.service.edit_draft import Attempt, EditDraft, Surroundings, hand_over, new_id, silenced
from app.service.idempotency import already_live, known_under, twin_of
from app.service.supersession import others_of_the_prompt, superseded_by, theirs
from app.service.tasks import together, uninterrupted
from app.service.verification import Verdict
from app.service.verification_progress import progress_of_prompts
from app.service.views import EditOptions, EditResult, EditResults, kept_report

FEW = 16
"""The most edits that wait for a turn to be verified. A larger batch waits only after others committed before it."""


class EditPipeline:
    """The making of edits. Any number may be in the making; commits go one at a time."""

    def __init__(self, parts: Collaborators) -> None:
        self._engine, self._records, self._pins = parts.engine, parts.records, parts.pins
        self._trial_answers, self._verifier = parts.trial_answers, parts.verifier
        self._fit_queue, self._request_builder = parts.fit_queue, parts.request_builder
        self._neighbourhood, self._locks = parts.neighbourhood, parts.locks
        self._committer = Committer(parts.records, parts.pins, parts.fingerprints, parts.clock)

    async def make(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        """Make edits, all or none. Raises EditRejected, ScopeConflict or PreconditionFailed."""
        check_batch(requests, dry_run=options.dry_run)
        drafts = await self._draft(requests, origin, options)
        try:
            if len(drafts) > 1:
                await check_ahead(drafts, self._engine, self._request_builder)
            seconds = await self._fit(drafts, self._bases(drafts))
            return await self._verify_and_commit(drafts, origin, seconds, options)
        finally:
            await uninterrupted(self._let_go(drafts))

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit, in one step, edits that were fitted elsewhere on this very model, once verified here.

        `fitted` has (request, editor key, fit) for each. Raises the errors of `make`, and IncompatibleEdit.
        """
        requests = [request for request, _, _ in fitted]
        check_batch(requests)
        drafts = [EditDraft(request, origin, [Attempt(editor_key, each)]) for request, editor_key, each in fitted]
        try:
            await self._look(drafts, self._bases(drafts))
            await self._load(drafts)
            return await self._verify_and_commit(drafts, origin, {"fit": 0.0}, EditOptions(batch=len(drafts) > 1))
        finally:
            await uninterrupted(self._let_go(drafts))

    # -- before the fit

    async def _draft(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> list[EditDraft]:
        drafts: list[EditDraft] = []
        for at, request in enumerate(requests):
            place = at if len(requests) > 1 else None
            with of_batch(place):
                # on another thread: it takes time with the texts' length, and serving continues meanwhile
                first, *further = await asyncio.to_thread(self._request_builder.editors, request)
                await asyncio.to_thread(self._request_builder.fit_request, request)  # refuses early, before generating
            drafts.append(EditDraft(request, origin, [Attempt(first)], options, place, further))
        await self._look(drafts, self._bases(drafts))
        return drafts

    def _bases(self, drafts: list[EditDraft]) -> dict[str, Edition]:
        """The live edits of the drafts' namespaces."""
        return {draft.request.namespace: self._pins.live_edition(draft.request.namespace) for draft in drafts}

    async def _look(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> None:
        """Record the present answers to the prompts, the edits superseded and the conflicting edits.

        Raises ScopeConflict, except for a preview, which reports it.
        """
        ledger = self._records.ledger
        superseded, others = list[tuple[str, ...]](), list[tuple[str, ...]]()
        for draft in drafts:
            with of_batch(draft.place):
                superseded.append(superseded_by(ledger, draft.request))
                others.append(others_of_the_prompt(ledger, draft.request, draft.origin, draft.options.read))
                if others[-1] and not draft.options.dry_run:
                    raise theirs(ledger, others[-1])
        now = await asyncio.gather(*(self._answers_now(draft, bases[draft.request.namespace]) for draft in drafts))
        for draft, answers, supersedes, owned in zip(drafts, now, superseded, others, strict=True):
            own = answers.get(draft.request.prompt)
            around = Surroundings(
                revision=bases[draft.request.namespace].revision,
                supersedes=supersedes,
                conflicts=(*owned, *in_the_way(self._records.ledger, draft.request, supersedes, answers.values())),
                answering=() if own is None else tuple(hit.edit_id for hit in own.reached),
            )
            if around.answering != draft.around.answering:
                draft.before = None
            draft.around = around
            if around.conflicts and not draft.options.dry_run:
                what = f"Edits with another target already answer {quoted(draft.request.prompt)} or a paraphrase of it"
                with of_batch(draft.place):
                    raise conflict_with(self._records.ledger, around.conflicts, what)

    async def _answers_now(self, draft: EditDraft, base: Edition) -> dict[str, Generation]:
        """One token for the prompt and each paraphrase that live edits may answer, which shows the one that does."""
        prompts = (draft.request.prompt, *draft.request.paraphrases)
        reach = await self._trial_answers.reach(prompts, base)
        prompts = tuple(each for each in prompts if reach.includes(each))
        return dict(zip(prompts, await self._trial_answers.first_tokens(prompts, base), strict=True))

    # -- fit, verify, commit

    async def _fit(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> dict[str, float]:
        began = time.perf_counter()
        for editor, namespace in dict.fromkeys((draft.editor, draft.request.namespace) for draft in drafts):
            mine = [d for d in drafts if d.editor == editor and d.request.namespace == namespace]
            requests = await self._neighbourhood.fit_requests([draft.request for draft in mine])
            learned = await self._fit_queue.fit(
                editor, requests, self._staying_live(mine, bases[namespace]), mine[0].options.on_progress
            )
            for draft, fitted in zip(mine, learned, strict=True):
                draft.attempt.fitted = fitted
        if diverged := [draft for draft in drafts if draft.diverged()]:
            for draft in diverged:
                problem = "its fit diverged: what it learned is not of finite numbers"
                draft.attempt.verdict = Verdict(after="", report={}, problems=(problem,))
            await self._escalate(diverged, drafts, bases)
        await self._load(drafts)
        took_s = time.perf_counter() - began
        for draft in drafts:
            draft.attempt.cost_s += took_s
        return {"fit": took_s}

    async def _load(self, drafts: list[EditDraft]) -> None:
        for draft in drafts:
            await self._engine.load([(draft.id, draft.editor, draft.fitted)])  # one at a time, between two steps

    @staticmethod
    def _staying_live(drafts: list[EditDraft], base: Edition) -> Edition:
        """The live edits beside which drafts of one namespace will act."""
        return base.trying((), frozenset(edit_id for draft in drafts for edit_id in draft.around.supersedes))

    async def _refit(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> float:
        """Fit drafts again if the live edits beside them have changed; returns the seconds taken."""
        stale: list[EditDraft] = []
        for draft in drafts:
            if self._engine.capabilities(draft.editor).independent:
                continue
            mates = [each for each in drafts if each.request.namespace == draft.request.namespace]
            live = self._staying_live(mates, bases[draft.request.namespace])
            if not await self._engine.still_fits(draft.editor, draft.fitted.learned, live):
                stale.append(draft)
        if not stale:
            return 0.0
        for draft in stale:
            await self._engine.drop([draft.id])
        return (await self._fit(stale, bases))["fit"]

    async def _verify_and_commit(
        self, drafts: list[EditDraft], origin: Origin, seconds: dict[str, float], options: EditOptions
    ) -> EditResults:
        lost = 0
        while True:
            in_turn = lost or len(drafts) <= FEW
            async with self._locks.taken([draft.request.namespace for draft in drafts] if in_turn else ()):
                began = time.perf_counter()
                if not options.dry_run and (
                    results := already_live(self._records, [draft.request for draft in drafts])
                ):
                    return results  # made by another request for the very same edits
                bases = self._bases(drafts)
                await self._look([d for d in drafts if d.around.revision != bases[d.request.namespace].revision], bases)
                seconds["fit"] += await self._refit(drafts, bases)
                with progress_of_prompts(drafts[0].options.on_progress):
                    failed = await self._verify(drafts, bases)
                took_s = time.perf_counter() - began
                seconds["verify"] = seconds.get("verify", 0.0) + took_s
                for draft in drafts:
                    draft.attempt.cost_s += took_s
                hopeless = [draft for draft in failed if not draft.further]
                if options.dry_run and (hopeless or not failed):
                    return self._previews(drafts, seconds)
                if not failed:
                    results = await self._commit(drafts, bases, origin, seconds, batch=options.batch)
                    if results is not None:
                        return results
                    lost += 1
            if failed:
                seconds["fit"] += await self._escalate(failed, drafts, bases)

    def _previews(self, drafts: Sequence[EditDraft], seconds: dict[str, float]) -> EditResults:
        views = [
            preview_of(self._committer.edit_of(draft, seconds), draft, twin_of(self._records, draft.request))
            for draft in drafts
        ]
        results = tuple(EditResult(view=view, seconds=seconds, created=False) for view in views)
        return EditResults(results=results, revision=self._records.revision)

    async def _commit(
        self,
        drafts: list[EditDraft],
        bases: Mapping[str, Edition],
        origin: Origin,
        seconds: dict[str, float],
        *,
        batch: bool,
    ) -> EditResults | None:
        """Commit the edits; None if others have committed meanwhile: the verification no longer applies."""
        began = time.perf_counter()
        async with self._records.writing:
            await self._records.catch_up()
            if known := known_under(self._records, origin):
                return known  # made on another server under the same key
            edits = [self._committer.edit_of(draft, seconds) for draft in drafts]
            with suppress(LostRace):
                await uninterrupted(self._committer.commit(edits, bases, origin, batch=batch))
                seconds["commit"] = time.perf_counter() - began
                return EditResults(
                    results=tuple(EditResult(view=self._records.view(e.id), seconds=seconds) for e in edits),
                    revision=self._records.revision,
                )
        await self._rename_staged(drafts)
        return None

    async def _rename_staged(self, drafts: list[EditDraft]) -> None:
        """Rename a batch's edits after others committed first; the batch already staged is never closed."""
        for draft in drafts:
            if draft.id in self._records.ledger.entries:
                await self._engine.drop([draft.id])
                draft.id = new_id()
                await self._engine.load([(draft.id, draft.editor, draft.fitted)])

    async def _escalate(self, failed: list[EditDraft], drafts: list[EditDraft], bases: Mapping[str, Edition]) -> float:
        """Let the next editor try the edits that did not hold; returns the seconds of the new fits.

        Raises EditRejected, with all attempts, if no editor is left.
        """
        hopeless = [draft for draft in failed if not draft.further]
        if overrun := [i for draft in hopeless for i in draft.verdict.overruns]:
            with of_batch(next(draft.place for draft in hopeless if draft.verdict.overruns)):
                raise conflict_with(self._records.ledger, overrun, "The edit would answer the prompts of others")
        if hopeless:
            problems = [problem for draft in hopeless for problem in draft.verdict.problems]
            raise EditRejected(
                f"The edit was fitted but did not hold when tried, so nothing was committed: {'; '.join(problems)}. "
                "Reword the target, give paraphrases, or set `force`. See /help/editors#refused-edits.",
                report={d.request.prompt: {**kept_report(d.verdict.report), "tried": d.reports()} for d in hopeless},
                **({"index": hopeless[0].place, "edits": [d.place for d in hopeless]} if len(drafts) > 1 else {}),
            )
        staying = [draft for draft in drafts if draft not in failed]
        for draft in failed:
            hand_over(draft, staying)
            if self._engine.holds(draft.id):
                await self._engine.drop([draft.id])
            draft.try_next()
        return (await self._fit(failed, bases))["fit"]

    async def _verify(self, drafts: list[EditDraft], bases: dict[str, Edition]) -> list[EditDraft]:
        """Verify all drafts; returns those that do not hold, except forced ones."""
        trials: dict[str, Edition] = {}
        for namespace, base in bases.items():
            mine = [draft for draft in drafts if draft.request.namespace == namespace]
            gone = frozenset(edit_id for draft in mine for edit_id in draft.around.supersedes)
            trials[namespace] = base.trying([draft.id for draft in mine], gone)
        superseded = [edit_id for draft in drafts for edit_id in draft.around.supersedes]

        async def verdict_of(draft: EditDraft) -> Verdict:
            await self._silence(draft, ())  # verified again, it may answer in every frame
            base = bases[draft.request.namespace]
            neighbourhood = await self._neighbourhood.of(
                draft.request, base, superseded, among=len(drafts), preview=draft.options.dry_run
            )
            trial = trials[draft.request.namespace]
            return await self._verifier.verify(
                draft.request, draft.id, base, trial, neighbourhood, note_before=draft.before is None
            )

        for draft, verdict in zip(drafts, await together(*map(verdict_of, drafts)), strict=True):
            draft.attempt.verdict = verdict
            draft.before = verdict.before if draft.before is None else draft.before
            await self._silence(draft, verdict.silent_in)
        failed = [draft for draft in drafts if not draft.verdict.passed and not draft.request.force]
        if len(drafts) > 1 and not failed:  # a failed draft may be fitted by another editor, with another scope
            await check_scopes(drafts, bases, self._neighbourhood, self._trial_answers)
        return failed

    async def _silence(self, draft: EditDraft, frames: Sequence[str]) -> None:
        """Keep the draft's edit from answering in these frames, and in no others."""
        draft.attempt.fitted = silenced(draft.fitted, frames)
        await self._engine.mute(draft.id, frames)

    async def _let_go(self, drafts: list[EditDraft]) -> None:
        """Release the rows of drafts that did not become edits."""
        async with self._records.writing:  # otherwise one might be found in the log just now and taken in
            entries = self._records.ledger.entries
            for draft in drafts:
                committed = draft.id in entries and entries[draft.id].staged_in is None
                if not committed:
                    await self._engine.drop([draft.id])
