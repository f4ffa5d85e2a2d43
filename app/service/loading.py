"""Which edits' rows are in the engine's memory: loaded before any request may see the edit, given back after."""

import asyncio

from app.domain.edit import Edit
from app.domain.errors import IncompatibleEdit, RequestCancelled
from app.domain.events import BatchCommitted, EditCommitted, Event
from app.domain.ledger import Entry, Ledger
from app.editors.base import Fitted
from app.editors.packing import unpack
from app.engine.owner import EngineOwner


class Loading:
    """`fingerprint` is of the model, tokenizer and sites that rows must have been made for."""

    def __init__(self, owner: EngineOwner, fingerprint: str, history_revisions: int) -> None:
        self._owner = owner
        self._fingerprint = fingerprint
        self._history_revisions = history_revisions

    async def load_all(self, ledger: Ledger) -> None:
        """What any request may see: live now or inside the window, or able to go live again."""
        for entry in ledger.entries.values():
            if self._may_answer(entry, ledger.revision):
                await self.load(entry.edit)

    def _may_answer(self, entry: Entry, revision: int) -> bool:
        if entry.staged_in is not None:
            return False
        oldest = revision - self._history_revisions
        return not entry.rolled_back or any(end > oldest for _, end in entry.live)

    async def take_in(self, event: Event, ledger: Ledger) -> None:
        """Have in memory what an event of another server is about to make live."""
        if isinstance(event, EditCommitted):
            await self.load(event.edit)
        elif isinstance(event, BatchCommitted):
            for edit_id in event.edit_ids:
                await self.load(ledger.entry(edit_id).edit)

    async def load(self, edit: Edit) -> None:
        """Raises IncompatibleEdit for one of another model, tokenizer or site."""
        if edit.id in self._owner.engine.editions:
            return  # an append whose answer was lost: what this server had fitted itself comes back as news
        if edit.model_fingerprint != self._fingerprint:
            raise IncompatibleEdit(
                f"The log holds the edit {edit.id}, made for the model and site {edit.model_fingerprint}; this server "
                f"runs {self._fingerprint}. Serve that model, or start with another store."
            )
        fitted = Fitted(learned=edit.learned, tensors=unpack(edit.tensors))
        await asyncio.wrap_future(self._owner.load(edit.id, edit.editor, fitted))

    async def clear(self) -> None:
        """End what runs, and give back the rows of every edit."""

        def clear() -> None:
            engine = self._owner.engine
            engine.end_all(RequestCancelled("The server rebuilds its edits: ask again.", retry_after_s=1))
            for edit_id in engine.editions.owned():
                engine.drop(edit_id)

        await asyncio.wrap_future(self._owner.call(clear))
