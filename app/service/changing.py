"""Changes to edits that are there already: taken back, switched off and on, expired. Each is one event."""

from collections.abc import Sequence

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import InvalidRequest
from app.domain.events import (
    EditsDisabled,
    EditsEnabled,
    EditsExpired,
    EditsRolledBack,
    Event,
    Origin,
    ProbesSet,
    SwitchSet,
)
from app.service.records import Clock, Records
from app.service.views import EditView


class Changing:
    """Every change is made on the newest ledger, whoever wrote to it last, and once for each idempotency key."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def flag(
        self,
        kind: type[EditsRolledBack] | type[EditsDisabled] | type[EditsEnabled],
        edit_ids: Sequence[str],
        origin: Origin,
    ) -> tuple[EditView, ...]:
        """One event of this kind about all of the edits. Raises UnknownEdit, StateConflict or IdempotencyMismatch."""
        ids = tuple(dict.fromkeys(edit_ids))
        if not ids:
            raise InvalidRequest("No edit was named: give at least one id.")

        def flagged() -> Event | None:
            if self._records.done_under(origin) is not None:
                return None
            self._records.ledger.check(kind, ids)
            return kind(revision=self._records.revision + 1, at_s=self._clock(), origin=origin, edit_ids=ids)

        await self._records.write(flagged)
        return tuple(self._records.view(edit_id) for edit_id in ids)

    async def roll_back_to(self, revision: int, origin: Origin) -> tuple[EditView, ...]:
        """Roll back every edit that was committed after a revision and stands yet, in one event."""
        touched: tuple[str, ...] = ()

        def back() -> Event | None:
            nonlocal touched
            ledger = self._records.ledger
            if not 0 <= revision <= ledger.revision:
                raise InvalidRequest(f"`to_revision` must be from 0 to {ledger.revision}.")
            done = self._records.done_under(origin)
            if done is not None:
                touched = done.edit_ids
                return None
            touched = tuple(
                entry.edit.id
                for entry in ledger.entries.values()
                if entry.live and entry.live[0][0] > revision and not entry.rolled_back
            )
            if not touched:
                return None
            return EditsRolledBack(revision=ledger.revision + 1, at_s=self._clock(), origin=origin, edit_ids=touched)

        await self._records.write(back)
        return tuple(self._records.view(edit_id) for edit_id in touched)

    async def set_switch(self, namespace: str | None, on: bool, origin: Origin) -> int:
        """The revision of the switch's event. Raises StateConflict where it stands so already."""
        done: int | None = None

        def switched() -> Event | None:
            nonlocal done
            before = self._records.done_under(origin)
            if before is not None:
                done = before.revision
                return None
            self._records.ledger.check_switch(namespace, on)
            done = self._records.revision + 1
            return SwitchSet(revision=done, at_s=self._clock(), origin=origin, namespace=namespace, on=on)

        await self._records.write(switched)
        assert done is not None
        return done

    async def set_probes(self, namespace: str, prompts: Sequence[str], origin: Origin) -> int:
        """-> the revision of the event."""
        if not NAMESPACE.fullmatch(namespace):
            raise InvalidRequest(f"`namespace` is not a name: use {NAMESPACE_RULE}.")
        if any(not prompt.strip() for prompt in prompts):
            raise InvalidRequest("`prompts` holds an empty text: remove it.")
        wanted = tuple(dict.fromkeys(prompts))
        done = 0

        def probes() -> Event | None:
            nonlocal done
            before = self._records.done_under(origin)
            done = self._records.revision + 1 if before is None else before.revision
            if before is not None:
                return None
            return ProbesSet(revision=done, at_s=self._clock(), origin=origin, namespace=namespace, prompts=wanted)

        await self._records.write(probes)
        return done

    async def expire(self) -> tuple[str, ...]:
        """One event for all edits whose time has run out. -> their ids, none if nothing was due."""
        due: tuple[str, ...] = ()

        def expired() -> Event | None:
            nonlocal due
            due = tuple(self._records.ledger.due(self._clock()))
            if not due:
                return None
            origin = Origin(actor="errata", reason="expired")
            return EditsExpired(revision=self._records.revision + 1, at_s=self._clock(), origin=origin, edit_ids=due)

        await self._records.write(expired)
        return due
