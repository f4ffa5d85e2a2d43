"""An edit's neighbourhood: the prompts besides its own on which it is verified before it goes live."""

import asyncio
from collections.abc import Iterable, Sequence

from app.domain.edit import EditRequest, edit_id_of
from app.editors.base import FitRequest
from app.engine.client import EngineClient
from app.engine.editions import Edition
from app.service.fit_requests import FitRequestBuilder
from app.service.pins import Pins
from app.service.recent_prompts import RecentPrompts
from app.service.records import Records
from app.service.verification import VerificationPrompts
from app.service.views import EditView

MOST = 64
"""The most prompts of one kind for all edits of a batch together, with at least one for each."""
MOST_LIVE = 8
MOST_RECENT, MOST_PREVIEWED = 16, 1000
"""The greatest number of recent prompts for an edit to be committed, and for a preview."""


class Neighbourhood:
    """Gathers made paraphrases, the namespace's probes, the newest live edits about the subject and recent prompts."""

    def __init__(
        self,
        engine: EngineClient,
        records: Records,
        pins: Pins,
        request_builder: FitRequestBuilder,
        recent: RecentPrompts,
    ) -> None:
        self._engine, self._records, self._pins = engine, records, pins
        self._request_builder, self._recent = request_builder, recent

    async def of(
        self, request: EditRequest, base: Edition, superseded: Sequence[str], *, among: int, preview: bool
    ) -> VerificationPrompts:
        """The neighbourhood of one of `among` edits that are verified together."""
        each = max(1, MOST // among)
        recent = MOST_PREVIEWED if preview else min(MOST_RECENT, each)
        return VerificationPrompts(
            made=self._request_builder.made_prompts(request)[:each],
            probes=self._records.ledger.probes.get(request.namespace, ()),
            live=await self._live(request, base, superseded, min(MOST_LIVE, each)),
            recent=self._recent.newest(request.namespace, recent),
            misses=(await asyncio.to_thread(self._request_builder.near_misses, request))[:each],
            frames=self._request_builder.frames(request),
            preview=preview,
        )

    async def fit_requests(self, requests: Sequence[EditRequest]) -> list[FitRequest]:
        """The editors' input for these requests, including the namespace's probes. Raises InvalidRequest."""
        probes = self._records.ledger.probes
        return [
            await asyncio.to_thread(self._request_builder.fit_request, each, probes.get(each.namespace, ()))
            for each in requests
        ]

    async def about_the_same(self, request: EditRequest, among: Iterable[str]) -> list[str]:
        """The fits, among these, that are about the same subject as the request."""
        scope_request = self._request_builder.scope_request(request)
        return await asyncio.to_thread(self._engine.scope.near, scope_request, among)

    async def neighbours(self, edit_id: str) -> list[EditView]:
        """The live edits about the same as this one, newest first. Raises UnknownEdit."""
        request = self._records.ledger.entry(edit_id).request
        base = self._pins.live_edition(request.namespace)
        by_prompt = await self._live(request, base, [edit_id], MOST_LIVE)
        return [self._records.view(each) for each in by_prompt.values()]

    async def _live(self, request: EditRequest, base: Edition, superseded: Sequence[str], most: int) -> dict[str, str]:
        """Maps prompts to the ids of live edits about the same subject, the newest ones."""
        if not base.edit_ids or not self._engine.alive:
            return {}
        near = await self.about_the_same(request, base.edit_ids)
        ids = {edit_id_of(fit_id) for fit_id in near}.difference(superseded)
        entries = sorted((self._records.ledger.entry(edit_id) for edit_id in ids), key=lambda entry: -entry.order)
        return {entry.request.prompt: entry.edit.id for entry in entries[:most]}
