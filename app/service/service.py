"""Errata's use cases, one method each. Every client request passes through here."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from app.domain.edit import Edit, EditRequest
from app.domain.errors import InvalidRequest
from app.domain.events import EditsDisabled, EditsRolledBack, Event, Origin
from app.domain.generation import Generation, GenerationParameters, Hit, Token
from app.domain.ledger import Ledger
from app.editors.base import Fitted
from app.editors.registry import AUTO
from app.engine.owner import EngineOwner
from app.scope.phrasebook import Phrasebook
from app.service.answers import Answers
from app.service.changes import Changes
from app.service.edit_intake import EditIntake
from app.service.edit_loader import EditLoader, no_collections
from app.service.edit_pipeline import EditPipeline
from app.service.engine_access import EngineAccess
from app.service.examined_judge import ExaminedJudge
from app.service.feedback import Feedback
from app.service.fit_queue import FitQueue
from app.service.fit_requests import FitRequestBuilder
from app.service.jobs import Jobs
from app.service.log_follower import LogFollower
from app.service.log_lines import refusals
from app.service.maintenance import tidy
from app.service.namespace_setup import set_namespace
from app.service.neighbourhood import Neighbourhood
from app.service.pins import Pins
from app.service.policies import Policies
from app.service.proposals import Proposals
from app.service.question_similarity import QuestionSimilarity
from app.service.rebuild import check_adopted, read_anew
from app.service.recent_prompts import RecentPrompts
from app.service.records import Clock, Records
from app.service.refits import Refitter
from app.service.retunes import Retune, Retuner
from app.service.server_status import editors_of, status_of
from app.service.snapshots import Snapshots
from app.service.verification import Thresholds, Verifier
from app.service.views import EditFilter, EditResults, EditView, OnProgress, OnStep, Page, Status, quietly, silent
from app.service.webhook_addresses import WebhookAddresses
from app.service.webhooks import Webhooks
from app.service.work_in_progress import STOPPING, Kind, WorkInProgress, refused
from app.store.base import Log
from app.store.snapshots import Manifest


class Service(EngineAccess):
    """Owns the log's writer and the engine's owner. `start` folds the log; after it the service is ready.

    `fingerprints` maps each editor to the model, tokenizer and sites of its edits. `namespaces` are named by the
    settings. `feedback` is (reported answers kept, days). `webhook_hosts` may be reached by webhooks although they are
    not public.
    """

    def __init__(
        self,
        owner: EngineOwner,
        log: Log,
        *,
        fingerprints: Mapping[str, str],
        history_revisions: int = 1000,
        max_new_tokens_limit: int = 4096,
        reason_required: bool = False,
        proposal_days: float = 30.0,
        snapshot_period_s: float = 3600.0,
        snapshot_min_events: int = 1000,
        phrasebook: Phrasebook | None = None,
        thresholds: Mapping[str, Thresholds] | None = None,
        recent_prompts: int = 0,
        feedback: tuple[int, float] = (0, 30.0),
        namespaces: Collection[str] = (),
        webhook_hosts: Sequence[str] = (),
        examined_judge: ExaminedJudge | None = None,
        clock: Clock = time.time,
        describe: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._owner = owner
        self._fingerprint = fingerprints[AUTO[0]]
        self.reason_required, self._clock, self._describe = reason_required, clock, describe
        self.examined_judge = owner.examined_judge = examined_judge or ExaminedJudge()
        self._request_builder = FitRequestBuilder(owner.engine, phrasebook or Phrasebook({}))
        self.loader = EditLoader(owner, fingerprints, history_revisions, self._request_builder.scope_request)
        self.records = Records(log, self.loader.take_in, self._folded, clock)
        self._pins = Pins(self.records, history_revisions)
        self._verifier = Verifier(owner, max(1, owner.engine.scheduler.slots // 4), thresholds)
        self.recent = RecentPrompts(recent_prompts)
        self.feedback = Feedback(feedback[0], QuestionSimilarity(owner.engine), clock, feedback[1])
        heard = self.recent, self.feedback
        self.answers = Answers(owner, self.records, self._pins, *heard, clock, max_new_tokens_limit)
        self._neighbourhood = Neighbourhood(owner, self.records, self._pins, self._request_builder, self.recent)
        verifying = FitQueue(owner), self._request_builder, self._verifier, self._neighbourhood
        pipeline = EditPipeline(owner, self.records, self._pins, *verifying, fingerprints, clock)
        self._intake = EditIntake(self.records, pipeline)
        self.policies = Policies(self.records, clock)
        run = self._intake.edit, clock, partial(self._working, "edit"), self._check_reason
        self.proposals = Proposals(self.records, *run, proposal_days)
        self._retuner = Retuner(owner, self.records, self._pins, *verifying, pipeline.locks, clock)
        self._refitter = Refitter(owner, self.records, self._pins, self._request_builder, self._verifier, clock)
        self.configured = namespaces
        self._changes = Changes(self.records, self._pins, self._verifier, pipeline.locks, clock, namespaces)
        self.jobs = Jobs(clock)
        self.webhooks = Webhooks(self.records, clock, WebhookAddresses(webhook_hosts))
        self._follower = LogFollower(self.records, self._rebuild)
        self.snapshots = Snapshots(self.records, clock, period_s=snapshot_period_s, min_events=snapshot_min_events)
        self._tasks: list[asyncio.Task[None]] = []
        self._why_not: str | None = "starting"
        self.work_in_progress = WorkInProgress(lambda: owner.end_all(refused(STOPPING)))

    # -- life

    async def start(self, tell: OnStep = quietly) -> None:
        """Fold the log, load its edits into memory and begin to serve. Raises StoreCorrupt or IncompatibleEdit."""
        tell("reading the log", 0, 0)
        self._owner.start()
        with no_collections(lambda: self.records.ledger):
            await asyncio.to_thread(self.records.fold_all)
            await self.loader.load_all(self.records.ledger, tell)
        tidying = tidy(self.records, self.loader, self._pins, self.expire, self._clock)
        work = (tidying, self._follower.run(), self.snapshots.run(), self._refitter.run(), self.examined_judge.run())
        self._tasks = [asyncio.create_task(each) for each in (*work, self.records.hits.run(), self.webhooks.run())]
        self._why_not = None

    async def stop(self) -> None:
        """Refuse new work, let running work end (within DRAIN_S), and close the log."""
        self._why_not = STOPPING
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.work_in_progress.drained()
        await self.jobs.stop()
        await asyncio.to_thread(self._owner.stop)
        await asyncio.to_thread(self.records.hits.exchange)
        async with self.records.writing:
            self.records.log.close()
        gc.unfreeze()

    def cut_short(self) -> None:
        """Refuse new work and end running work with an error; called before `stop` if that cannot wait."""
        self._why_not = STOPPING
        self.work_in_progress.cut_short()

    def _folded(self, event: Event, ledger: Ledger) -> None:
        self.loader.note(event, ledger)
        if isinstance(event, EditsRolledBack):
            self._refitter.look()

    async def _rebuild(self, why: str) -> None:
        """Start again from the present log. Until that succeeds the server is not ready."""
        self._why_not = f"rebuilding: {why}"
        await self.work_in_progress.drained()

        def failed(reason: str) -> None:
            self._why_not = f"rebuilding: {reason}"

        await read_anew(self.records, self.loader, self._pins, failed)
        self._why_not = None

    async def adopt_log(self, revision: int, origin: Origin) -> None:
        """Start again from the log in the applied one's place. Raises StateConflict if it ends elsewhere."""
        await check_adopted(self.records, revision, origin)
        await self._rebuild("the log is adopted")

    # -- state

    @property
    def revision(self) -> int:
        return self.records.revision

    def status(self) -> Status:
        why_not = self._why_not or self.records.held or (None if self._owner.alive else "the engine has stopped")
        silence_s, judge, extra = self._follower.silence_s, self.examined_judge.view(), self._describe()
        standing = status_of(self.records, self._owner.engine, self._fingerprint, why_not, silence_s, judge, extra)
        return replace(standing, reported_answers=self.feedback.count())

    def editors(self) -> list[dict[str, Any]]:
        """Each editor with its capabilities, the number of its live edits, and the memory of its rows."""
        return editors_of(self.records, self._owner.engine)

    def check_fitted(self, edits: Sequence[Edit]) -> None:
        """Raises IncompatibleEdit for edits that were fitted for another model or site."""
        self.loader.check(edits, where="The file")

    def refits_due(self) -> bool:
        """True if edits that shared weights with a rolled-back one have yet to be fitted again without it."""
        return self._refitter.due()

    async def adopt(self, fitted: Sequence[tuple[EditRequest, str, Fitted]], origin: Origin) -> EditResults:
        """Commit edits that were fitted elsewhere, once they are verified here."""
        self.policies.check_alone([request.namespace for request, _, _ in fitted], "nothing is imported into it")
        with self._working("edit"):
            return await self._intake.adopt(fitted, origin)

    # -- generate

    async def generate(self, prompt: str, parameters: GenerationParameters) -> Generation:
        return (await self.generate_all([prompt], parameters))[0]

    async def generate_all(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> list[Generation]:
        """`n` answers to each prompt at one revision: those to the first prompt, then those to the next."""
        found: dict[int, Generation] = {}
        async with aclosing(self.stream(prompts, parameters, n)) as items:  # type: ignore[type-var]
            async for at, item in items:
                if isinstance(item, Generation):
                    found[at] = item
        return [found[at] for at in range(len(prompts) * n)]

    async def score(self, prompt: str, continuation: str, parameters: GenerationParameters) -> Generation:
        """The probability of a continuation, including end-of-text, by teacher forcing through the serving path."""
        ids = self._owner.engine.text.encode_target(prompt, continuation)
        return await self.generate(prompt, replace(parameters, forced=ids, max_new_tokens=len(ids)))

    async def stream(
        self, prompts: Sequence[str], parameters: GenerationParameters, n: int = 1
    ) -> AsyncIterator[tuple[int, Token | Generation]]:
        """Yields (index, token) for `n` answers to each prompt at one revision, and each Generation last.

        Closing the iterator early cancels the answers that have not ended.
        """
        with self._working("answer"):
            async with aclosing(self.answers.stream(prompts, parameters, n)) as items:  # type: ignore[type-var]
                async for item in items:
                    yield item

    def _working(self, kind: Kind) -> AbstractContextManager[None]:
        """A context for work that `stop` waits for. Raises the errors of `_admit`."""
        self._admit()
        return self.work_in_progress.counted(kind)

    def _admit(self) -> None:
        if self._why_not is not None:
            raise refused(self._why_not)

    def _check_reason(self, reason: str | None) -> None:
        self.records.check_held()
        if self.reason_required and not (reason or "").strip():
            raise InvalidRequest("`reason` is required on this server: say why, for the audit trail.")

    # -- edits

    async def edit(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool = True,
        batch: bool = False,
        dry_run: bool = False,
        tell: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        """Make edits, or propose those that need a second person. `read` is the revision that was read."""
        how: dict[str, Any] = {"atomic": atomic, "batch": batch, "dry_run": dry_run, "tell": tell, "read": read}
        told = refusals("Edit", requests, origin, self.records.ledger.keys, unless=dry_run)
        with self._working("edit"), told as failures:
            for request in requests:
                self._check_reason(request.reason or origin.reason)
            if not dry_run and self.policies.waits([each.namespace for each in requests], origin.role):
                return await self.proposals.propose(requests, origin, atomic=atomic, batch=batch, tell=tell, read=read)
            results = await self._intake.edit(requests, origin, **how)
            failures.extend(results.failures)
            return results

    async def retune(
        self, edit_id: str, change: Retune, origin: Origin, read: int | None = None, tell: OnProgress = silent
    ) -> EditView:
        """Change an edit's scope, as a new revision."""
        self.policies.check_alone_on(edit_id)
        with self._working("edit"), refusals("Retune", (), origin, self.records.ledger.keys):
            self._check_reason(origin.reason)
            return await self._retuner.retune(edit_id, change, origin, read, tell)

    async def neighbours(self, edit_id: str) -> list[EditView]:
        """The live edits about the same as this one, newest first."""
        return await self._neighbourhood.neighbours(edit_id)

    async def scope_of(self, prompts: Sequence[str], namespace: str) -> list[tuple[Hit | None, Hit | None]]:
        """For each prompt the live edit that it asks for and the one that came nearest, decided without an answer."""
        with self._working("answer"):
            return await self.answers.scope_of(prompts, namespace)

    async def set_probes(self, namespace: str, prompts: Sequence[str], origin: Origin) -> int:
        """Set the prompts of a namespace whose answers no edit may change; returns the revision."""
        await asyncio.to_thread(self._request_builder.check_prompts, prompts)
        self.check_change(origin)
        return await self._changes.set_probes(namespace, prompts, origin)

    def edits(self, where: EditFilter, limit: int, cursor: str | None) -> Page:
        return self.records.page(where, limit, cursor)

    def edit_view(self, edit_id: str) -> EditView:
        return self.records.view(edit_id)

    async def roll_back(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        """Roll back edits in one event; edits that they had superseded are live again."""
        self.check_change(origin)
        return await self._changes.flag(EditsRolledBack, edit_ids, origin, read)

    async def disable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        self.check_change(origin)
        return await self._changes.flag(EditsDisabled, edit_ids, origin, read)

    async def enable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        self.check_change(origin)
        with self._working("edit"):
            return await self._changes.enable(edit_ids, origin, read)

    async def roll_back_to(
        self, revision: int, namespace: str | None, origin: Origin, read: int | None = None
    ) -> tuple[EditView, ...]:
        """Roll back every edit of a namespace (None: of all) that was committed after a revision."""
        self.check_change(origin)
        return await self._changes.roll_back_to(revision, namespace, origin, read)

    async def set_switch(self, namespace: str | None, on: bool, origin: Origin) -> int:
        """Set the kill switch: `on` false stops every edit of a namespace, or of all. Returns the new revision."""
        self.check_change(origin)
        return await self._changes.set_switch(namespace, on, origin)

    async def set_namespace(self, namespace: str, description: str, origin: Origin) -> int:
        """Set up a namespace, or change its description; returns the revision."""
        self.check_change(origin)
        return await set_namespace(self.records, self._clock, namespace, description, origin)

    async def expire(self) -> tuple[str, ...]:
        await self.proposals.expire()
        return await self._changes.expire()

    def check_change(self, origin: Origin) -> None:
        """Raises if a change cannot be accepted, because of the server's state or a missing reason."""
        self._admit()
        self._check_reason(origin.reason)

    async def take_snapshot(self) -> tuple[Manifest, bool]:
        """A snapshot of the newest revision, and whether it is new."""
        self._admit()
        return await self.snapshots.take()
