"""The fake service's changes of existing edits, in the real ledger; nothing is fitted."""

from collections.abc import Sequence
from typing import Any

from app.domain.errors import StateConflict
from app.domain.events import EditsDisabled, EditsEnabled, EditsRolledBack, Origin, ProbesSet, SwitchSet
from app.service.namespace_setup import set_namespace
from app.service.outlook import check_switch, since
from app.service.records import Records
from app.service.snapshots import Snapshots
from app.service.supersession import check_read
from app.service.views import EditView
from app.store.snapshots import Manifest


class FakeChanges:
    """`fails` is raised by the next use case."""

    records: Records
    snapshots: Snapshots
    configured: tuple[str, ...]
    origins: list[Origin]
    fails: Exception | None
    why_not: str | None
    now_s: float

    @property
    def revision(self) -> int:
        return self.records.revision

    async def set_probes(self, namespace: str, prompts: Sequence[str], origin: Origin) -> int:
        self._fail()
        self.origins.append(origin)
        await self._append(ProbesSet, origin, namespace=namespace, prompts=tuple(prompts))
        return self.revision

    async def roll_back(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        return await self._flag(EditsRolledBack, edit_ids, origin, read)

    async def disable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        return await self._flag(EditsDisabled, edit_ids, origin, read)

    async def enable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        return await self._flag(EditsEnabled, edit_ids, origin, read)

    async def roll_back_to(
        self, revision: int, namespace: str | None, origin: Origin, read: int | None = None
    ) -> tuple[EditView, ...]:
        later = since(self.records.ledger, revision, namespace, self.configured, read)
        return await self.roll_back(later, origin) if later else ()

    async def _flag(
        self, kind: Any, edit_ids: Sequence[str], origin: Origin, read: int | None = None
    ) -> tuple[EditView, ...]:
        if self.records.done_under(origin) is not None:
            return tuple(self.records.view(edit_id) for edit_id in edit_ids)
        self._fail()
        self.origins.append(origin)
        self.records.ledger.check(kind, edit_ids)
        check_read(self.records.ledger, list(edit_ids), read)
        await self._append(kind, origin, edit_ids=tuple(edit_ids))
        return tuple(self.records.view(edit_id) for edit_id in edit_ids)

    async def set_switch(self, namespace: str | None, on: bool, origin: Origin) -> int:
        self._fail()
        self.origins.append(origin)
        check_switch(self.records.ledger, namespace, on, self.configured)
        await self._append(SwitchSet, origin, namespace=namespace, on=on)
        return self.revision

    async def set_namespace(self, namespace: str, description: str, origin: Origin) -> int:
        self._fail()
        self.origins.append(origin)
        return await set_namespace(self.records, lambda: self.now_s, namespace, description, origin)

    async def adopt_log(self, revision: int, origin: Origin) -> None:
        self._fail()
        self.origins.append(origin)
        if "history" not in self.records.holds:
            raise StateConflict("There is nothing to adopt.")
        self.records.holds.clear()

    async def take_snapshot(self) -> tuple[Manifest, bool]:
        self._fail()
        return await self.snapshots.take()

    def check_change(self, origin: Origin) -> None:
        self._fail()

    async def _append(self, kind: Any, origin: Origin, **fields: Any) -> None:
        async with self.records.writing:
            await self.records.append(kind(revision=self.revision + 1, at_s=self.now_s, origin=origin, **fields))

    def _fail(self) -> None:
        raise NotImplementedError
