"""A service without a model: the real records over the real log in memory, and answers that are looked up.

It keeps Service's signatures and knows nothing of HTTP. Torch-free.
"""

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from app.domain.edit import Edit, EditRequest
from app.domain.errors import (
    EditRejected,
    IdempotencyMismatch,
    InvalidRequest,
    ScopeConflict,
)
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditRetuned,
    EditStaged,
    Origin,
    Refit,
)
from app.domain.generation import GenerationParameters, Hit
from app.domain.progress import OnStep, quietly
from app.editors.base import FitProgress
from app.service.jobs import Jobs
from app.service.policies import Policies
from app.service.proposals import Proposals
from app.service.recent_prompts import RecentPrompts
from app.service.retunes import Retune
from app.service.snapshots import Snapshots
from app.service.supersession import check_read, others_of_the_prompt, superseded_by, theirs
from app.service.views import (
    EditFilter,
    EditOptions,
    EditResult,
    EditResults,
    EditView,
    OnProgress,
    Page,
    Status,
    silent,
)
from tests.api.fake_answering import each_for_itself, standing
from tests.api.fake_answers import FakeAnswering, told_of
from tests.api.fake_changes import FakeChanges
from tests.api.fake_generating import NEAREST, NOW_S, UNCERTAIN, FakeGenerating
from tests.api.fake_judging import FakeJudging
from tests.api.fake_receiver import receiving

__all__ = ["NEAREST", "NOW_S", "UNCERTAIN", "FakeService"]

SECONDS = {"fit": 0.5, "verify": 0.25, "commit": 0.001}
REJECTED = "cannot be learned"
"""A target that fails its verification."""
UNFIT = "no answer can have this"
"""A target that is refused before anything is fitted."""


class FakeService(FakeGenerating, FakeChanges):
    """Its clock stands at `now_s`."""

    def __init__(self) -> None:
        super().__init__()
        self.configured: tuple[str, ...] = ()
        self.recent = RecentPrompts(most=10)
        self.answers = FakeAnswering()
        self.jobs = Jobs(lambda: NOW_S)
        self.webhooks = receiving(self.records)
        self.snapshots = Snapshots(self.records, lambda: NOW_S, period_s=0, min_events=1)
        self.reason_required = False
        self.started = self.stopped = 0
        self.origins: list[Origin] = []
        self.at_start: Callable[[], None] = lambda: None
        self.examined_judge = FakeJudging()
        self.policies = Policies(self.records, lambda: self.now_s)
        run = self.make, lambda: self.now_s, nullcontext, self._check_reason
        self.proposals = Proposals(self.records, *run)

    async def start(self, on_step: OnStep = quietly) -> None:
        self.at_start()
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    def status(self) -> Status:
        return standing(self)

    def editors(self) -> list[dict[str, Any]]:
        return [{"name": "grace", "preset": "serving", "sites": ["mlp"], "capabilities": {"max_target_tokens": 64}}]

    # -- edits

    async def edit(
        self,
        requests: Sequence[EditRequest],
        origin: Origin,
        *,
        atomic: bool = True,
        batch: bool = False,
        dry_run: bool = False,
        on_progress: OnProgress = silent,
        read: int | None = None,
    ) -> EditResults:
        options = EditOptions(atomic=atomic, batch=batch, dry_run=dry_run, on_progress=on_progress, read=read)
        if not dry_run and self.policies.proposes([each.namespace for each in requests], origin):
            return await self.proposals.propose(requests, origin, options)
        return await self.make(requests, origin, options)

    async def make(self, requests: Sequence[EditRequest], origin: Origin, options: EditOptions) -> EditResults:
        dry_run, read = options.dry_run, options.read
        if options.batch and not options.atomic:
            return await each_for_itself(self.edit, requests, origin, dry_run=dry_run, read=read)
        options.on_progress("fit", FitProgress(step=3, steps=200, loss=0.25))
        await asyncio.sleep(self.slow_s)
        self._fail()
        self.origins.append(origin)
        digest = hashlib.sha256(json.dumps([r.digest() for r in requests]).encode()).hexdigest()
        known = self.records.ledger.done_under(origin)
        if known is not None:
            if known.digest != digest:
                raise IdempotencyMismatch("This Idempotency-Key was used with another body: take a new key.")
            results = tuple(self._result(i, created=False) for i in known.edit_ids)
            return EditResults(results=results, revision=known.revision)
        if any(request.target == REJECTED for request in requests):
            raise EditRejected("The edit did not hold when tried.", report={"exact": False})
        for request in requests:
            for edit_id in request.supersede:
                self.records.ledger.entry(edit_id)
            if others_edits := others_of_the_prompt(self.records.ledger, request, origin, read):
                raise theirs(self.records.ledger, others_edits)
            others = self.records.ledger.live(request.namespace)
            clash = [edit.id for edit in others if edit.request.prompt == f"{request.prompt}?"]
            if clash and not request.force:
                raise ScopeConflict("Another edit is in the way.", conflicts=clash)
        if origin.idempotency_key is not None:
            origin = replace(origin, digest=digest)
        edits = [self.made(i, request) for i, request in enumerate(requests)]
        if dry_run:
            previews = [EditView.preview(replace(edit, report=told_of(edit)), origin) for edit in edits]
            results = tuple(EditResult(view=view, seconds=SECONDS, created=False) for view in previews)
            return EditResults(results=results, revision=self.revision)
        if options.batch:
            for edit in edits:
                await self._append(EditStaged, replace(origin, idempotency_key=None), batch_id="ba_1", edit=edit)
            await self._append(BatchCommitted, origin, batch_id="ba_1", edit_ids=tuple(edit.id for edit in edits))
        else:
            await self._append(EditCommitted, origin, edit=edits[0])
        return EditResults(results=tuple(self._result(e.id, created=True) for e in edits), revision=self.revision)

    def check_edit(self, request: EditRequest) -> None:
        if request.target == UNFIT:
            raise InvalidRequest("`target` holds a control token: give the answer as plain text.")

    def made(self, index: int, request: EditRequest) -> Edit:
        ledger = self.records.ledger
        return Edit(
            id=f"ed_{len(ledger.entries) + index:04}",
            request=request,
            editor="grace",
            created_at_s=NOW_S,
            expires_at_s=None if request.expires_in_s is None else NOW_S + request.expires_in_s,
            supersedes=superseded_by(ledger, request),
            model_fingerprint="f00d/mlp",
            before="base answer here",
            after=request.target,
            report={"exact": True, "paraphrases": dict.fromkeys(("asked", "right"), len(request.paraphrases))},
            learned={"scope": {"keys": [request.prompt], "bound": 0.5}},
            tensors=b"\x00\xff",
        )

    def _result(self, edit_id: str, *, created: bool) -> EditResult:
        return EditResult(view=self.records.view(edit_id), seconds=SECONDS, created=created)

    def edits(self, where: EditFilter, limit: int, cursor: str | None) -> Page:
        return self.records.page(where, limit, cursor)

    def edit_view(self, edit_id: str) -> EditView:
        return self.records.view(edit_id)

    async def neighbours(self, edit_id: str) -> list[EditView]:
        request = self.records.ledger.entry(edit_id).request
        same = [edit.id for edit in self.records.ledger.live(request.namespace) if edit.request.subject]
        return [self.records.view(each) for each in same if each != edit_id and request.subject]

    async def retune(
        self, edit_id: str, change: Retune, origin: Origin, read: int | None = None, on_progress: OnProgress = silent
    ) -> EditView:
        on_progress("verify", FitProgress(step=1, steps=4, loss=math.nan))
        await asyncio.sleep(self.slow_s)
        self._fail()
        self.policies.check_alone_on(edit_id)
        self.origins.append(origin)
        check_read(self.records.ledger, [edit_id], read)
        self.records.ledger.check(EditRetuned, [edit_id])
        entry = self.records.ledger.entry(edit_id)
        fit = Refit(edit_id=edit_id, learned=entry.learned, tensors=b"")
        told: Any = {"report": {"exact": True}, "changed": change.changes, "forced": change.force}
        await self._append(EditRetuned, origin, fit=fit, request=change.of(entry.request), **told)
        return self.records.view(edit_id)

    async def scope_of(self, prompts: Sequence[str], namespace: str) -> list[tuple[Hit | None, Hit | None]]:
        """An edit has its own prompt in scope, and no edit is near to another."""
        hits = (self._answer(prompt, GenerationParameters(namespace=namespace))[1] for prompt in prompts)
        return [(next(iter(mine), None), None) for mine in hits]

    def false_hits(self, namespace: str) -> float:
        return 0.25 if namespace == "lax" else 0.002

    def check_change(self, origin: Origin) -> None:
        self._fail()
        self._check_reason(origin.reason)

    def _check_reason(self, reason: str | None) -> None:
        if self.reason_required and not reason:
            raise InvalidRequest("`reason` is required on this server.")
