"""The life of the service: its assembly, start, stop and state. Knows no use case."""

import asyncio
import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from app.domain.errors import ErrataError
from app.domain.events import EditsRolledBack, Event, Origin
from app.domain.ledger import Ledger
from app.domain.progress import OnStep, quietly
from app.editors.registry import AUTO
from app.engine.client import EngineClient
from app.engine.owner import EngineOwner
from app.scope.phrasebook import Phrasebook
from app.service.admission import Admission
from app.service.answers import Answers
from app.service.changes import Changes
from app.service.collaborators import Collaborators
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
from app.service.maintenance import tidy
from app.service.namespace_locks import NamespaceLocks
from app.service.neighbourhood import Neighbourhood
from app.service.pins import Pins
from app.service.policies import Policies
from app.service.proposals import Proposals
from app.service.question_similarity import QuestionSimilarity
from app.service.rebuild import check_adopted, read_anew
from app.service.recent_prompts import RecentPrompts
from app.service.records import Clock, Records
from app.service.refits import Refitter
from app.service.retunes import Retuner
from app.service.server_status import editors_of, status_of
from app.service.snapshots import Snapshots
from app.service.trial_answers import TrialAnswers
from app.service.verification import Thresholds, Verifier
from app.service.views import Status
from app.service.webhook_addresses import WebhookAddresses
from app.service.webhooks import Webhooks
from app.service.work_in_progress import STOPPING, WorkInProgress, refused
from app.store.base import Log


class Lifecycle(EngineAccess):
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
        self._owner, client = owner, EngineClient(owner)
        self._fingerprint = fingerprints[AUTO[0]]
        self._clock, self._describe = clock, describe
        self.examined_judge = owner.examined_judge = examined_judge or ExaminedJudge()
        self.request_builder = FitRequestBuilder(client, phrasebook or Phrasebook({}))
        self.loader = EditLoader(client, fingerprints, history_revisions, self.request_builder.scope_request)
        self.records = Records(log, self.loader.take_in, self._folded, clock)
        self._pins = Pins(self.records, history_revisions)
        trial_answers = TrialAnswers(client, max(1, client.slots // 4))
        self.recent = RecentPrompts(recent_prompts)
        self.feedback = Feedback(feedback[0], QuestionSimilarity(client), clock, feedback[1])
        self.answers = Answers(
            client, self.records, self._pins, self.recent, self.feedback, clock, max_new_tokens_limit
        )
        self._neighbourhood = Neighbourhood(client, self.records, self._pins, self.request_builder, self.recent)
        self.admission = Admission(self.records, reason_required, lambda: owner.end_all(refused(STOPPING)))
        parts = Collaborators(
            engine=client,
            records=self.records,
            pins=self._pins,
            fit_queue=FitQueue(client),
            request_builder=self.request_builder,
            trial_answers=trial_answers,
            verifier=Verifier(client, trial_answers, thresholds),
            neighbourhood=self._neighbourhood,
            locks=NamespaceLocks(),
            fingerprints=fingerprints,
            clock=clock,
        )
        self._intake = EditIntake(self.records, EditPipeline(parts))
        self.policies = Policies(self.records, clock)
        self.proposals = Proposals(
            self.records, self._intake.edit, clock, self.admission.editing, self.admission.check_reason, proposal_days
        )
        self._retuner = Retuner(parts)
        self.refitter = Refitter(parts)
        self.configured = namespaces
        self._changes = Changes(parts, namespaces)
        self.jobs = Jobs(clock)
        self.webhooks = Webhooks(self.records, clock, WebhookAddresses(webhook_hosts))
        self._follower = LogFollower(self.records, self._rebuild)
        self.snapshots = Snapshots(self.records, clock, period_s=snapshot_period_s, min_events=snapshot_min_events)
        self._tasks: list[asyncio.Task[None]] = []
        self._rebuilding = asyncio.Lock()

    async def start(self, on_step: OnStep = quietly) -> None:
        """Fold the log, load its edits into memory and begin to serve. Raises StoreCorrupt or IncompatibleEdit."""
        on_step("reading the log", 0, 0)
        self._owner.start()
        with no_collections(lambda: self.records.ledger):
            await asyncio.to_thread(self.records.fold_all)
            await self.loader.load_all(self.records.ledger, on_step)
        async with self.records.writing:  # loading takes its time, in which other servers publish
            with suppress(ErrataError):  # the follower meets it again, and waits, rebuilds or holds
                await self.records.catch_up()
        tidying = tidy(self.records, self.loader, self._pins, self.expire, self._clock)
        work = (tidying, self._follower.run(), self.snapshots.run(), self.refitter.run(), self.examined_judge.run())
        self._tasks = [asyncio.create_task(each) for each in (*work, self.records.hits.run(), self.webhooks.run())]
        self.admission.why_not = None

    async def stop(self) -> None:
        """Refuse new work, let running work end (within DRAIN_S), and close the log."""
        self.admission.why_not = STOPPING
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.admission.work_in_progress.drained()
        await self.jobs.stop()
        await asyncio.to_thread(self._owner.stop)
        await asyncio.to_thread(self.records.hits.exchange)
        async with self.records.writing:
            self.records.log.close()
        gc.unfreeze()

    def cut_short(self) -> None:
        """Refuse new work and end running work with an error; called before `stop` if that cannot wait."""
        self.admission.why_not = STOPPING
        self.admission.work_in_progress.cut_short()

    @property
    def alive(self) -> bool:
        """False once the engine has stopped: the server then has to be started again."""
        return self._owner.alive

    @property
    def reason_required(self) -> bool:
        return self.admission.reason_required

    @property
    def work_in_progress(self) -> WorkInProgress:
        return self.admission.work_in_progress

    def _folded(self, event: Event, ledger: Ledger) -> None:
        self.loader.note(event, ledger)
        if isinstance(event, EditsRolledBack):
            self.refitter.look()

    async def _rebuild(self, why: str) -> None:
        """Start again from the present log. Until that succeeds the server is not ready."""
        async with self._rebuilding:
            await self._start_again(why)

    async def _start_again(self, why: str) -> None:
        def not_ready(reason: str | None) -> None:
            if self.admission.why_not != STOPPING:
                self.admission.why_not = None if reason is None else f"rebuilding: {reason}"

        not_ready(why)
        await self.admission.work_in_progress.drained()
        await read_anew(self.records, self.loader, self._pins, not_ready)
        not_ready(None)

    async def adopt_log(self, revision: int, origin: Origin) -> None:
        """Start again from the log in the applied one's place. Raises StateConflict if it ends elsewhere, or if another
        request has had it adopted."""
        async with self._rebuilding:  # a second rebuild would take rows away after the first has made the server ready
            await check_adopted(self.records, revision, origin)
            await self._start_again("the log is adopted")

    def status(self) -> Status:
        engine = self.engine.failure if self.alive else "the engine has stopped"
        why_not = self.admission.why_not or self.records.held or engine
        silence_s, judge, extra = self._follower.silence_s, self.examined_judge.view(), self._describe()
        status = status_of(self.records, self.engine, self._fingerprint, why_not, silence_s, judge, extra)
        return replace(status, reported_answers=self.feedback.count())

    def editors(self) -> list[dict[str, Any]]:
        """Each editor with its capabilities, the number of its live edits, and the memory of its rows. Blocks until the
        engine's thread, which alone changes the rows, has measured them. Raises RequestCancelled if that ends."""
        if not self.alive:
            return editors_of(self.records, self.engine)
        return self.on_engine(partial(editors_of, self.records)).result()

    async def expire(self) -> tuple[str, ...]:
        """Expire the proposals and edits that are due; returns the ids of the edits."""
        await self.proposals.expire()
        return await self._changes.expire()
