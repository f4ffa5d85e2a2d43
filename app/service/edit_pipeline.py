"""From drafts to live edits: fitted beside serving, verified under a trial, committed by one append.

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
from app.service.commits import Committer, EditDraft, hand_over, new_id, preview_of, silenced
from app.service.conflicts import check_batch, check_scopes, conflict_with, in_the_way
from app.service.idempotency import already_live, known_under, twin_of
from app.service.records import uninterrupted
from app.service.supersession import others_of_the_prompt, superseded_by, theirs
from app.service.verification import Verdict
from app.service.verification_progress import telling
from app.service.views import EditResult, EditResults, OnProgress, kept_report

FEW = 16
"""The most edits that wait for a turn to be verified. A larger batch waits only after others committed before it."""


class EditPipeline:
    """The making of edits. Any number may be in the making; commits go one at a time."""

    def __init__(self, parts: Collaborators) -> None:
        self._engine, self._records, self._pins, self._verifier = (
            parts.engine,
            parts.records,
            parts.pins,
            parts.verifier,
        )
        self._fit_queue, self._request_builder = parts.fit_queue, parts.request_builder
        self._neighbourhood, self._locks = parts.neighbourhood, parts.locks
        self._committer = Committer(parts.records, parts.pins, parts.fingerprints, parts.clock)

    async def make(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        batch: bool,
        dry_run: bool,
        tell: OnProgress,
        read: int | None = None,
    ) -> EditResults:
        """`read` is the revision that was read. Raises EditRejected, ScopeConflict or PreconditionFailed."""
        check_batch(requests, dry_run=dry_run)
        drafts = await self._draft(requests, origin, dry_run=dry_run, tell=tell, read=read)
        try:
            if len(drafts) > 1:
                await check_ahead(drafts, self._engine, self._request_builder)
            seconds = await self._fit(drafts, self._bases(drafts))
            return await self._verify_and_commit(drafts, origin, seconds, batch=batch, dry_run=dry_run)
        finally:
            await uninterrupted(self._let_go(drafts))

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit, in one step, edits that were fitted elsewhere on this very model, once verified here.

        `fitted` has (request, adaptor, fit) for each. Raises the errors of `make`, and IncompatibleEdit.
        """
        requests = [request for request, _, _ in fitted]
        check_batch(requests)
        drafts = [EditDraft(new_id(), request, adaptor, origin, fitted=each) for request, adaptor, each in fitted]
        try:
            await self._look(drafts, self._bases(drafts))
            await self._load(drafts)
            seconds = {"fit": 0.0}
            return await self._verify_and_commit(drafts, origin, seconds, batch=len(drafts) > 1, dry_run=False)
        finally:
            await uninterrupted(self._let_go(drafts))

    # -- before the fit

    async def _draft(
        self, requests: Sequence[EditRequest], origin: Origin, *, dry_run: bool, tell: OnProgress, read: int | None
    ) -> list[EditDraft]:
        drafts: list[EditDraft] = []
        for at, request in enumerate(requests):
            place = at if len(requests) > 1 else None
            with of_batch(place):
                # on another thread: it takes time with the texts' length, and serving continues meanwhile
                first, *further = await asyncio.to_thread(self._request_builder.editors, request)
                await asyncio.to_thread(self._request_builder.fit_request, request)  # refuses early, before generating
            draft = EditDraft(new_id(), request, first, origin, further=further, dry_run=dry_run, tell=tell, read=read)
            draft.place = place
            drafts.append(draft)
        await self._look(drafts, self._bases(drafts))
        return drafts

    def _bases(self, drafts: list[EditDraft]) -> dict[str, Edition]:
        """The live edits of the drafts' namespaces."""
        return {draft.request.namespace: self._pins.live_edition(draft.request.namespace) for draft in drafts}

    async def _look(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> None:
        """Record the present answers to the prompts, the edits superseded and the conflicting edits.

        Raises ScopeConflict, except for a preview, which reports it.
        """
        others: dict[str, tuple[str, ...]] = {}
        for draft in drafts:
            with of_batch(draft.place):
                draft.supersedes = superseded_by(self._records.ledger, draft.request)
                others[draft.id] = others_of_the_prompt(self._records.ledger, draft.request, draft.origin, draft.read)
                if others[draft.id] and not draft.dry_run:
                    raise theirs(self._records.ledger, others[draft.id])
            draft.seen = bases[draft.request.namespace].revision
        now = await asyncio.gather(*(self._answers_now(draft, bases[draft.request.namespace]) for draft in drafts))
        for draft, answers in zip(drafts, now, strict=True):
            answering = [tuple(hit.edit_id for hit in answer.reached) for answer in answers]
            if answering != draft.answering:
                draft.answering, draft.before = answering, None
            in_the_way_now = in_the_way(self._records.ledger, draft.request, draft.supersedes, answers)
            draft.conflicts = (*others[draft.id], *in_the_way_now)
            if draft.conflicts and not draft.dry_run:
                what = f"Edits with another target already answer {quoted(draft.request.prompt)} or a paraphrase of it"
                with of_batch(draft.place):
                    raise conflict_with(self._records.ledger, draft.conflicts, what)

    async def _answers_now(self, draft: EditDraft, base: Edition) -> list[Generation]:
        """One token for the prompt and each paraphrase, which shows the live edit that answers, if there are any."""
        prompts = (draft.request.prompt, *draft.request.paraphrases) if base.edit_ids else ()
        return list(await asyncio.gather(*(self._verifier.first_token(prompt, base) for prompt in prompts)))

    # -- fit, verify, commit

    async def _fit(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> dict[str, float]:
        began = time.perf_counter()
        for editor, namespace in dict.fromkeys((draft.editor, draft.request.namespace) for draft in drafts):
            mine = [d for d in drafts if d.editor == editor and d.request.namespace == namespace]
            requests = await self._neighbourhood.fit_requests([draft.request for draft in mine])
            learned = await self._fit_queue.fit(editor, requests, self._beside(mine, bases[namespace]), mine[0].tell)
            for draft, fitted in zip(mine, learned, strict=True):
                draft.fitted = fitted
        if diverged := [draft for draft in drafts if draft.diverged()]:
            for draft in diverged:
                problem = "its fit diverged: what it learned is not of finite numbers"
                draft.verdict = Verdict(after="", report={}, problems=(problem,))
            await self._escalate(diverged, drafts, bases)
        await self._load(drafts)
        took_s = time.perf_counter() - began
        for draft in drafts:
            draft.cost_s += took_s
        return {"fit": took_s}

    async def _load(self, drafts: list[EditDraft]) -> None:
        for draft in drafts:
            assert draft.fitted is not None
            await self._engine.load([(draft.id, draft.editor, draft.fitted)])  # one at a time, between two steps

    @staticmethod
    def _beside(drafts: list[EditDraft], base: Edition) -> Edition:
        """The live edits beside which drafts of one namespace will stand."""
        return base.trying((), frozenset(edit_id for draft in drafts for edit_id in draft.supersedes))

    async def _refit(self, drafts: list[EditDraft], bases: Mapping[str, Edition]) -> float:
        """Fit drafts again if the live edits beside them have changed; returns the seconds taken."""
        stale: list[EditDraft] = []
        for draft in drafts:
            assert draft.fitted is not None
            if self._engine.capabilities(draft.editor).independent:
                continue
            mates = [each for each in drafts if each.request.namespace == draft.request.namespace]
            beside = self._beside(mates, bases[draft.request.namespace])
            if not await self._engine.still_fits(draft.editor, draft.fitted.learned, beside):
                stale.append(draft)
        if not stale:
            return 0.0
        for draft in stale:
            await self._engine.drop([draft.id])
        return (await self._fit(stale, bases))["fit"]

    async def _verify_and_commit(
        self, drafts: list[EditDraft], origin: Origin, seconds: dict[str, float], *, batch: bool, dry_run: bool
    ) -> EditResults:
        lost = 0
        while True:
            in_turn = lost or len(drafts) <= FEW
            async with self._locks.taken([draft.request.namespace for draft in drafts] if in_turn else ()):
                began = time.perf_counter()
                if not dry_run and (made := already_live(self._records, [draft.request for draft in drafts])):
                    return made  # made by another request for the very same edits
                bases = self._bases(drafts)
                await self._look([d for d in drafts if d.seen != bases[d.request.namespace].revision], bases)
                seconds["fit"] += await self._refit(drafts, bases)
                with telling(drafts[0].tell):
                    failed = await self._verify(drafts, bases)
                took_s = time.perf_counter() - began
                seconds["verify"] = seconds.get("verify", 0.0) + took_s
                for draft in drafts:
                    draft.cost_s += took_s
                hopeless = [draft for draft in failed if not draft.further]
                if dry_run and (hopeless or not failed):
                    return self._previews(drafts, seconds)
                if not failed:
                    made = await self._commit(drafts, bases, origin, seconds, batch=batch)
                    if made is not None:
                        return made
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
                assert draft.fitted is not None
                await self._engine.drop([draft.id])
                draft.id = new_id()
                await self._engine.load([(draft.id, draft.editor, draft.fitted)])

    async def _escalate(self, failed: list[EditDraft], drafts: list[EditDraft], bases: Mapping[str, Edition]) -> float:
        """Let the next editor try the edits that did not hold; returns the seconds of the new fits.

        Raises EditRejected, with all attempts, if no editor is left.
        """
        hopeless = [draft for draft in failed if not draft.further]
        if overrun := [i for draft in hopeless if draft.verdict for i in draft.verdict.overruns]:
            with of_batch(next(draft.place for draft in hopeless if draft.verdict and draft.verdict.overruns)):
                raise conflict_with(self._records.ledger, overrun, "The edit would answer the prompts of others")
        if hopeless:
            problems = [problem for draft in hopeless if draft.verdict for problem in draft.verdict.problems]
            raise EditRejected(
                f"The edit was fitted but did not hold when tried, so nothing was committed: {'; '.join(problems)}. "
                "Reword the target, give paraphrases, or set `force`. See /help/editors#refused-edits.",
                report={
                    d.request.prompt: {**kept_report(d.verdict.report), "tried": d.attempts()}
                    for d in hopeless
                    if d.verdict
                },
                **({"index": hopeless[0].place, "edits": [d.place for d in hopeless]} if len(drafts) > 1 else {}),
            )
        staying = [draft for draft in drafts if draft not in failed]
        for draft in failed:
            assert draft.verdict is not None
            hand_over(draft, staying)
            draft.tried, draft.cost_s = draft.attempts(), 0.0
            if self._engine.holds(draft.id):
                await self._engine.drop([draft.id])
            draft.editor, draft.further = draft.further[0], draft.further[1:]
        return (await self._fit(failed, bases))["fit"]

    async def _verify(self, drafts: list[EditDraft], bases: dict[str, Edition]) -> list[EditDraft]:
        """Verify all drafts; returns those that do not hold, except forced ones."""
        trials: dict[str, Edition] = {}
        for namespace, base in bases.items():
            mine = [draft for draft in drafts if draft.request.namespace == namespace]
            gone = frozenset(edit_id for draft in mine for edit_id in draft.supersedes)
            trials[namespace] = base.trying([draft.id for draft in mine], gone)
        superseded = [edit_id for draft in drafts for edit_id in draft.supersedes]

        async def verdict_of(draft: EditDraft) -> Verdict:
            await self._silence(draft, ())  # verified again, it may answer in every frame
            base = bases[draft.request.namespace]
            beside = await self._neighbourhood.of(
                draft.request, base, superseded, among=len(drafts), preview=draft.dry_run
            )
            trial = trials[draft.request.namespace]
            return await self._verifier.verify(draft.request, draft.id, base, trial, beside)

        async def note_before(draft: EditDraft) -> None:
            """Generated in one batch with the verification, where it costs little."""
            if draft.before is None:
                base = bases[draft.request.namespace]
                draft.before = (await self._verifier.answer_before(draft.request, base, whole=draft.dry_run)).said

        work = asyncio.gather(*map(verdict_of, drafts)), asyncio.gather(*map(note_before, drafts))
        verdicts, _ = await asyncio.gather(*work)
        for draft, verdict in zip(drafts, verdicts, strict=True):
            draft.verdict = verdict
            await self._silence(draft, verdict.silent_in)
        failed = [draft for draft in drafts if draft.verdict and not draft.verdict.passed and not draft.request.force]
        if len(drafts) > 1 and not failed:  # a failed draft may be fitted by another editor, with another scope
            await check_scopes(drafts, bases, self._neighbourhood, self._verifier)
        return failed

    async def _silence(self, draft: EditDraft, frames: Sequence[str]) -> None:
        """Keep the draft's edit from answering in these frames, and in no others."""
        assert draft.fitted is not None
        draft.fitted = silenced(draft.fitted, frames)
        await self._engine.mute(draft.id, frames)

    async def _let_go(self, drafts: list[EditDraft]) -> None:
        """Release the rows of drafts that did not become edits."""
        async with self._records.writing:  # otherwise one might be found in the log just now and taken in
            entries = self._records.ledger.entries
            for draft in drafts:
                committed = draft.id in entries and entries[draft.id].staged_in is None
                if not committed:
                    await self._engine.drop([draft.id])
