"""Which edits' rows are in the engine's memory: loaded before any request may see the edit, given back after."""

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from app.domain.edit import Edit
from app.domain.errors import IncompatibleEdit, RequestCancelled
from app.domain.events import BatchCommitted, EditCommitted, EditsRolledBack, Event
from app.domain.ledger import Entry, Ledger
from app.editors.base import Fitted
from app.editors.packing import unpack
from app.engine.owner import EngineOwner

LOAD_EDITS = 500


class Loading:
    """`fingerprints`, by editor, are of the model, tokenizer and sites that its rows must have been made for."""

    def __init__(self, owner: EngineOwner, fingerprints: Mapping[str, str], history_revisions: int) -> None:
        self._owner = owner
        self._fingerprints = fingerprints
        self._history_revisions = history_revisions
        self._leaving: deque[tuple[int, str]] = deque()
        """(revision, id) of edits that were rolled back there and whose rows are in memory yet, in this order."""

    async def load_all(self, ledger: Ledger) -> None:
        """What any request may see: live now or inside the window, or able to go live again."""
        entries = [entry for entry in ledger.entries.values() if self._may_answer(entry, ledger.revision)]
        left = [(entry.live[-1][1], entry.edit.id) for entry in entries if entry.rolled_back]
        self._leaving = deque(sorted(left))
        edits = [entry.edit for entry in entries]
        for first in range(0, len(edits), LOAD_EDITS):
            # many in one message: between two threads a message costs as much as an edit's rows
            await self._load(edits[first : first + LOAD_EDITS])

    def _may_answer(self, entry: Entry, revision: int) -> bool:
        if entry.staged_in is not None:
            return False
        oldest = revision - self._history_revisions
        return not entry.rolled_back or any(end > oldest for _, end in entry.live)

    def note(self, event: Event) -> None:
        """Of every event that is folded."""
        if isinstance(event, EditsRolledBack):
            self._leaving.extend((event.revision, edit_id) for edit_id in event.edit_ids)

    async def release(self, oldest: int, in_use: Callable[[Collection[str]], Collection[str]]) -> None:
        """Give back the rows of edits that were rolled back before all revisions that a request may still ask for."""
        gone: list[tuple[int, str]] = []
        while self._leaving and self._leaving[0][0] <= oldest:
            gone.append(self._leaving.popleft())
        if not gone:
            return
        used = in_use([edit_id for _, edit_id in gone])
        self._leaving.extendleft(reversed([each for each in gone if each[1] in used]))
        unused = [edit_id for _, edit_id in gone if edit_id not in used]

        def release() -> None:
            for edit_id in unused:
                if edit_id in self._owner.engine.editions:
                    self._owner.engine.drop(edit_id)

        await asyncio.wrap_future(self._owner.call(release))

    async def take_in(self, event: Event, ledger: Ledger) -> None:
        """Have in memory what an event of another server is about to make live."""
        if isinstance(event, EditCommitted):
            await self.load(event.edit)
        elif isinstance(event, BatchCommitted):
            for edit_id in event.edit_ids:
                await self.load(ledger.entry(edit_id).edit)

    async def load(self, edit: Edit) -> None:
        """Raises IncompatibleEdit for one of another model, tokenizer or site."""
        if edit.id not in self._owner.engine.editions:  # else an append whose answer was lost comes back as news
            await self._load([edit])

    async def _load(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            ours = self._fingerprints.get(edit.editor)
            if ours is None:
                raise IncompatibleEdit(
                    f"The log holds the edit {edit.id}, made by the editor {edit.editor!r}, which this version of "
                    f"Errata does not have: run one that has it."
                )
            if edit.model_fingerprint != ours:
                raise IncompatibleEdit(
                    f"The log holds the edit {edit.id}, made for the model and site {edit.model_fingerprint}; this "
                    f"server runs {ours}. Serve that model, or start with another store."
                )
        fitted = [Fitted(learned=edit.learned, tensors=unpack(edit.tensors)) for edit in edits]

        def load() -> None:
            for edit, each in zip(edits, fitted, strict=True):
                self._owner.engine.load(edit.id, edit.editor, each)

        await asyncio.wrap_future(self._owner.call(load))

    async def clear(self) -> None:
        """End what runs, and give back the rows of every edit."""

        def clear() -> None:
            engine = self._owner.engine
            engine.end_all(RequestCancelled("The server rebuilds its edits: ask again.", retry_after_s=1))
            for edit_id in engine.editions.owned():
                engine.drop(edit_id)

        await asyncio.wrap_future(self._owner.call(clear))


@contextmanager
def no_collections() -> Iterator[None]:
    """A long log makes millions of objects that all stay: looking through them for garbage doubles the start."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
