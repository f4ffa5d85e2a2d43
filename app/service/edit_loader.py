"""The edits' rows in the engine's memory: loaded before any request may see an edit, released afterwards."""

import asyncio
import gc
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from app.domain.edit import Edit, EditRequest, fit_id_of
from app.domain.entry import Entry
from app.domain.errors import IncompatibleEdit, RequestCancelled
from app.domain.events import (
    BatchCommitted,
    EditCommitted,
    EditRetuned,
    EditsRefitted,
    EditsRolledBack,
    EditStaged,
    Event,
)
from app.domain.ledger import Ledger
from app.domain.progress import OnStep, quietly
from app.domain.scope import ScopeRequest
from app.editors.base import Fitted
from app.editors.packing import unpack
from app.engine.client import EngineClient

_log = logging.getLogger(__name__)
LOAD_EDITS = 500
SERVED_BETWEEN = 32
"""The most edits of other servers that are loaded between two steps of answers."""
MANY = 1000
"""The number of edits from which garbage collection becomes noticeable."""


class EditLoader:
    """`fingerprints` maps each editor to the model, tokenizer and sites for which its rows must have been made."""

    def __init__(
        self,
        engine: EngineClient,
        fingerprints: Mapping[str, str],
        history_revisions: int,
        scope_of: Callable[[EditRequest], ScopeRequest],
    ) -> None:
        self._engine, self._scope_of = engine, scope_of
        self._fingerprints = fingerprints
        self._history_revisions = history_revisions
        self._leaving: deque[tuple[int, str]] = deque()
        """(revision, id) of fits that are out of effect since then and whose rows are still in memory, in order."""

    async def load_all(self, ledger: Ledger, on_step: OnStep = quietly) -> None:
        """Load all edits that a request may see: live now or within the window, or able to go live again."""
        entries = [entry for entry in ledger.entries.values() if self._may_answer(entry, ledger.revision)]
        oldest = ledger.revision - self._history_revisions
        edits = [fit for entry in entries for fit in entry.fits(oldest)]
        left = [(entry.live[-1][1], fit.id) for entry in entries if entry.rolled_back for fit in entry.fits(oldest)]
        left += [(at, entry.fit_id(at - 1)) for entry in entries for at, _ in entry.refits if at > oldest]
        bringing = _missing(edits, ledger)
        left += [(ledger.revision, fit.id) for fit in bringing]
        self._leaving = deque(sorted(set(left)))
        edits = [*bringing, *edits]
        for first in range(0, len(edits), LOAD_EDITS):
            # many in one message: a message between two threads costs as much as an edit's rows
            await self._load(edits[first : first + LOAD_EDITS], on_step)
            on_step("loading edits", min(first + LOAD_EDITS, len(edits)), len(edits))

    def _may_answer(self, entry: Entry, revision: int) -> bool:
        if entry.staged_in is not None:
            return False
        oldest = revision - self._history_revisions
        return not entry.rolled_back or any(end > oldest for _, end in entry.live)

    def note(self, event: Event, ledger: Ledger) -> None:
        """Note the rows that an event makes superfluous. Called for every event that is folded."""
        if isinstance(event, EditsRolledBack):
            gone = (fit.id for edit_id in event.edit_ids for fit in ledger.entry(edit_id).fits(0))
            self._leaving.extend((event.revision, fit_id) for fit_id in gone)
        elif isinstance(event, EditsRefitted | EditRetuned):
            before = (ledger.entry(edit_id).fit_id(event.revision - 1) for edit_id in event.edit_ids)
            self._leaving.extend((event.revision, fit_id) for fit_id in before)

    async def release(self, oldest: int, in_use: Callable[[Collection[str]], Collection[str]]) -> None:
        """Release the rows of edits that were rolled back before the `oldest` revision that a request may ask for."""
        gone: list[tuple[int, str]] = []
        while self._leaving and self._leaving[0][0] <= oldest:
            gone.append(self._leaving.popleft())
        if not gone:
            return
        used = in_use([edit_id for _, edit_id in gone])
        self._leaving.extendleft(reversed([each for each in gone if each[1] in used]))
        await self._engine.drop([edit_id for _, edit_id in gone if edit_id not in used])

    async def take_in(self, events: Sequence[Event], ledger: Ledger) -> None:
        """Load the edits that other servers' events are about to make live. Those that are held already are left: an
        append whose answer was lost comes back as news.

        Raises IncompatibleEdit for an edit that belongs to another model, tokenizer or site.
        """
        edits = [edit for edit in _brought(events, ledger) if not self._engine.holds(edit.id)]
        for first in range(0, len(edits), SERVED_BETWEEN):
            await self._load(edits[first : first + SERVED_BETWEEN])

    def check(self, edits: Sequence[Edit], where: str = "The log") -> None:
        """Raises IncompatibleEdit for an edit of an editor, model, tokenizer or site that this server does not have."""
        for edit in edits:
            ours = self._fingerprints.get(edit.editor_key)
            if ours is None:
                raise IncompatibleEdit(
                    f"{where} holds the edit {edit.id}, made by the editor {edit.editor_key!r}, which this server "
                    f"does not have: run a version of Errata, and an engine, that has it."
                )
            if edit.model_fingerprint != ours:
                raise IncompatibleEdit(
                    f"{where} holds the edit {edit.id}, made for the model and site {edit.model_fingerprint}; this "
                    f"server runs {ours}. Serve that model, or start with another store."
                )

    async def _load(self, edits: Sequence[Edit], on_step: OnStep = quietly) -> None:
        self.check(edits)
        fitted = await asyncio.to_thread(lambda: [self._fitted(edit) for edit in edits])
        scopes = [each.learned.get("scope") for each in fitted]
        await asyncio.to_thread(self._engine.scope.read_ahead, [scope for scope in scopes if scope])

        rows = [(edit.id, edit.editor_key, each) for edit, each in zip(edits, fitted, strict=True)]
        await self._engine.load(rows)

    def _fitted(self, edit: Edit) -> Fitted:
        """An edit's fit. If the edit predates scopes as texts, its scope is learned again from its request."""
        learned = dict(edit.learned)
        if "scope" not in learned and self._engine.capabilities(edit.editor_key).scoped:
            learned["scope"] = self._engine.scope.learn(self._scope_of(edit.request)).model_dump()
        return Fitted(learned=learned, tensors=unpack(edit.tensors))

    async def clear(self) -> None:
        """End everything that runs, and release the rows of all edits."""
        await self._engine.clear(RequestCancelled("The server rebuilds its edits: ask again.", retry_after_s=1))


def _brought(events: Sequence[Event], ledger: Ledger) -> Iterator[Edit]:
    """The fits that events bring, as edits, where the ledger has not folded them yet."""
    new = {event.edit.id: event.edit for event in events if isinstance(event, EditCommitted | EditStaged)}

    def edit(edit_id: str) -> Edit:
        return new[edit_id] if edit_id in new else ledger.entry(edit_id).edit

    for event in events:
        if isinstance(event, EditCommitted):
            yield event.edit
        elif isinstance(event, BatchCommitted):
            yield from map(edit, event.edit_ids)
        elif isinstance(event, EditsRefitted | EditRetuned):
            for fit in event.fits if isinstance(event, EditsRefitted) else (event.fit,):
                name = fit_id_of(fit.edit_id, event.revision)
                yield replace(edit(fit.edit_id), id=name, learned=fit.learned, tensors=fit.tensors)


def _missing(edits: Sequence[Edit], ledger: Ledger) -> list[Edit]:
    """The edits that may no longer answer, but hold tensors that some of these share."""
    brought = {edit.learned["shared"] for edit in edits if edit.learned.get("brings")}
    missing = {edit.learned["shared"] for edit in edits if "shared" in edit.learned} - brought
    if not missing:
        return []
    fits = (fit for entry in ledger.entries.values() if entry.staged_in is None for fit in entry.fits(0))
    return [fit for fit in fits if fit.learned.get("brings") and fit.learned.get("shared") in missing]


@contextmanager
def no_collections(ledger: Callable[[], Ledger]) -> Iterator[None]:
    """A context without garbage collection. A long log makes millions of objects that all stay: scanning them doubles
    the start, and would interrupt serving from time to time. Code that stops serving calls gc.unfreeze."""
    gc.disable()
    try:
        yield
        if len(ledger().entries) >= MANY:
            gc.collect()  # otherwise garbage would stay too
            gc.freeze()
    finally:
        gc.enable()
