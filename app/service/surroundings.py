"""What is asked about an edit besides its own prompts, before it goes live: what stands around it."""

import asyncio
from collections.abc import Sequence
from functools import partial

from app.domain.edit import EditRequest, edit_id_of
from app.editors.base import FitRequest
from app.engine.editions import Edition
from app.engine.owner import EngineOwner
from app.service.preparing import Preparing
from app.service.recent import Recent
from app.service.records import Records
from app.service.verifying import Beside

MOST = 64
"""Prompts of a kind that are asked for all edits of a batch together, at least one for each."""
MOST_LIVE = 8
MOST_RECENT = 16
"""For one edit that is to be committed; a preview asks all."""


class Surroundings:
    """Gathers made paraphrases, the namespace's probes, the nearest live edits and recent prompts."""

    def __init__(self, owner: EngineOwner, records: Records, preparing: Preparing, recent: Recent) -> None:
        self._owner, self._records, self._preparing, self._recent = owner, records, preparing, recent

    async def of(
        self, request: EditRequest, base: Edition, superseded: Sequence[str], *, among: int, preview: bool
    ) -> Beside:
        """For one of `among` edits that are verified together."""
        each = max(1, MOST // among)
        recent = self._recent.most if preview else min(MOST_RECENT, each)
        return Beside(
            made=self._preparing.made_prompts(request)[:each],
            probes=self._records.ledger.probes.get(request.namespace, ()),
            live=await self._live(self._preparing.fit_request(request), base, superseded, min(MOST_LIVE, each)),
            recent=self._recent.newest(request.namespace, recent),
        )

    async def neighbours(self, request: EditRequest, base: Edition, edit_id: str) -> list[str]:
        """Ids of the live edits nearest to one, the newest first."""
        return list((await self._live(self._preparing.fit_request(request), base, [edit_id], MOST_LIVE)).values())

    async def _live(self, request: FitRequest, base: Edition, superseded: Sequence[str], most: int) -> dict[str, str]:
        """Prompt -> id of live edits about the same subject, the newest ones."""
        if not base.edit_ids:
            return {}
        near = await asyncio.wrap_future(self._owner.call(partial(self._owner.engine.near, request)))
        ids = {edit_id_of(fit_id) for fit_id in set(near).intersection(base.edit_ids)}.difference(superseded)
        entries = sorted((self._records.ledger.entry(edit_id) for edit_id in ids), key=lambda entry: -entry.order)
        return {entry.request.prompt: entry.edit.id for entry in entries[:most]}
