"""Fits again the edits that shared weights with a rolled-back one, so that nothing of it remains in them.

The rolled-back edit is out of scope at once, by its own event; this follows in the background as an event of its own.
Of several servers over one log the first does it, and the others find it done.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.edit import Edit, fit_id_of
from app.domain.entry import Entry
from app.domain.errors import ErrataError
from app.domain.events import EditsRefitted, Event, Origin, Refit
from app.domain.words import same_text
from app.editors.base import FitRequest, Fitted
from app.editors.packing import pack
from app.engine.editions import SILENT_IN, Edition
from app.service.collaborators import Collaborators
from app.service.edit_draft import silenced
from app.service.tasks import together

PAUSE_S = 5.0
"""The pause before a new attempt, in seconds."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefitGroup:
    """Edits that are still in effect and share weights with one that is not."""

    editor_key: str
    shared: str
    entries: tuple[Entry, ...]
    replaced: tuple[str, ...]
    """The names of the fits that are to be replaced, one for each entry."""


class Refitter:
    """A task beside serving."""

    def __init__(self, parts: Collaborators) -> None:
        self._engine, self._records, self._pins, self._clock = parts.engine, parts.records, parts.pins, parts.clock
        self._request_builder, self._trial_answers = parts.request_builder, parts.trial_answers
        self._wanted = asyncio.Event()
        self._given_up: set[str] = set()
        """The shared ids of groups whose edits do not hold when they are fitted without the others."""

    def look(self) -> None:
        """Note that an edit was rolled back."""
        self._wanted.set()

    def due(self) -> bool:
        """True if edits that shared weights with a rolled-back one have yet to be fitted again without it."""
        return bool(self._groups())

    async def run(self) -> None:
        self._wanted.set()  # a server may have stopped between a rollback and its refit
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for group in self._groups():
                try:
                    await self._refit(group)
                except ErrataError as error:
                    _log.warning("Edits that shared weights with a rolled back one were not refitted yet: %s", error)
                    asyncio.get_running_loop().call_later(PAUSE_S, self._wanted.set)
                except Exception:
                    # this task must not end: later rollbacks would stay in shared weights forever
                    _log.exception("Refitting edits failed; it is tried again with the next rollback")

    def _groups(self) -> list[RefitGroup]:
        exact = {key for key in self._engine.editors() if self._engine.capabilities(key).rollback == "exact_async"}
        groups: dict[tuple[str, str], list[Entry]] = {}
        gone: set[tuple[str, str]] = set()
        for entry in self._records.ledger.entries.values():
            shared = entry.learned.get("shared")
            if shared is None or entry.edit.editor_key not in exact or entry.staged_in is not None:
                continue
            if entry.rolled_back:
                gone.add((entry.edit.editor_key, shared))
            else:
                groups.setdefault((entry.edit.editor_key, shared), []).append(entry)
        return [
            RefitGroup(editor_key, shared, tuple(entries), tuple(entry.fit_id() for entry in entries))
            for (editor_key, shared), entries in groups.items()
            if (editor_key, shared) in gone and shared not in self._given_up
        ]

    async def _refit(self, group: RefitGroup) -> None:
        edits = [entry.edit for entry in group.entries]
        requests = [self._request_builder.fit_request(entry.request) for entry in group.entries]
        nothing = Edition(edits[0].request.namespace, 0, ())
        anew = await self._engine.fit(group.editor_key, requests, nothing)
        inputs = zip(group.entries, anew, requests, strict=True)
        fitted = [await asyncio.to_thread(self._in_its_scope, group.editor_key, *each) for each in inputs]
        trial = f"trial-{uuid.uuid4().hex[:8]}"
        names = [f"{edit.id}@{trial}" for edit in edits]
        try:
            await self._load(group.editor_key, names, fitted)
            failed = await self._failed(edits, names)
            if failed:
                self._given_up.add(group.shared)
                _log.warning(
                    "%d edits, fitted again without one that was rolled back, do not hold (%s): they stay as they are, "
                    "and what is left of it in the weights that they share stays too.",
                    len(failed),
                    ", ".join(failed),
                )
                return
            await self._commit(group, fitted)
        finally:
            await self._engine.drop(names)

    async def _failed(self, edits: Sequence[Edit], names: Sequence[str]) -> list[str]:
        """The ids of the edits that no longer answer their own prompt as they did when they were committed."""
        fits = {edit.id: name for edit, name in zip(edits, names, strict=True)}
        spaces = {edit.request.namespace for edit in edits}
        trials = {space: self._pins.live_edition(space).replacing(fits) for space in spaces}
        alone = {  # edits that are switched off or superseded, which must hold when they come back
            edit.id: trials[edit.request.namespace].trying([fits[edit.id]], frozenset())
            for edit in edits
            if fits[edit.id] not in trials[edit.request.namespace].edit_ids
        }
        answers = await together(
            *(
                self._trial_answers.answer(
                    edit.request.prompt, alone.get(edit.id, trials[edit.request.namespace]), edit.request.target
                )
                for edit in edits
            )
        )
        return [
            edit.id
            for edit, answer in zip(edits, answers, strict=True)
            if same_text(edit.after, edit.request.target) and not same_text(answer.text, edit.request.target)
        ]

    async def _commit(self, group: RefitGroup, fitted: Sequence[Fitted]) -> None:
        """Append the new fits, unless one of the fits that they replace is no longer in effect."""
        fits = tuple(
            Refit(edit_id=entry.edit.id, learned=dict(each.learned), tensors=pack(each.tensors))
            for entry, each in zip(group.entries, fitted, strict=True)
        )
        names: list[str] = []

        def refitted() -> Event | None:
            if any(e.rolled_back or e.fit_id() != fit for e, fit in zip(group.entries, group.replaced, strict=True)):
                self._wanted.set()  # another rollback, a retune or another server came first: look again
                return None
            revision = self._records.revision + 1
            names[:] = [fit_id_of(entry.edit.id, revision) for entry in group.entries]
            reason = "fitted again without what was rolled back"
            return EditsRefitted(
                revision=revision, at_s=self._clock(), origin=Origin(actor="errata", reason=reason), fits=fits
            )

        async def loaded() -> None:
            await self._load(group.editor_key, names, fitted)

        async def dropped() -> None:
            await self._engine.drop(names)

        await self._records.write(refitted, loaded, dropped)

    def _in_its_scope(self, editor_key: str, entry: Entry, anew: Fitted, request: FitRequest) -> Fitted:
        """The new fit with the present scope, which keeps its bound; a scope that predates scopes as texts is learned
        again."""
        anew = silenced(anew, entry.learned.get(SILENT_IN, ()))
        if "scope" not in entry.learned:
            return self._engine.with_scope(editor_key, anew, request)
        return Fitted(learned={**anew.learned, "scope": entry.learned["scope"]}, tensors=anew.tensors)

    async def _load(self, editor_key: str, names: Sequence[str], fitted: Sequence[Fitted]) -> None:
        await self._engine.load([(name, editor_key, each) for name, each in zip(names, fitted, strict=True)])
