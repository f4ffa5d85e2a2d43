"""Changes to existing edits: rollback, disabling, enabling and expiry. Each is one event."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

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
from app.service.collaborators import Collaborators
from app.service.conflicts import conflict_with, in_the_way
from app.service.outlook import check_switch, since
from app.service.supersession import check_read
from app.service.views import EditView


class Changes:
    """Changes of edits. Every change is made on the newest ledger, whoever wrote to it last, and once for each
    idempotency key."""

    def __init__(self, parts: Collaborators, configured: Collection[str] = ()) -> None:
        """`configured` are the namespaces that the settings name, which may be unused as yet."""
        self._configured = configured
        self._records, self._pins, self._locks = parts.records, parts.pins, parts.locks
        self._trial_answers = parts.trial_answers
        self._clock = parts.clock

    async def flag(
        self,
        kind: type[EditsRolledBack] | type[EditsDisabled],
        edit_ids: Sequence[str],
        origin: Origin,
        read: int | None = None,
    ) -> tuple[EditView, ...]:
        """Append one event of this kind about all of the edits, if they are unchanged since the revision that was
        `read`.

        Raises UnknownEdit, StateConflict, PreconditionFailed or IdempotencyMismatch.
        """
        await self._flag(kind, edit_ids, origin, read)
        return tuple(self._records.view(edit_id) for edit_id in dict.fromkeys(edit_ids))

    async def enable(self, edit_ids: Sequence[str], origin: Origin, read: int | None = None) -> tuple[EditView, ...]:
        """Enable edits. Raises the errors of `flag`, and ScopeConflict if a newer edit answers the prompts of one of
        them."""
        spaces: set[str] = set()
        while True:
            async with self._locks.taken(spaces):
                done = self._records.done_under(origin) is not None
                seen = {} if done else await self._in_the_way(edit_ids)
                if await self._flag(EditsEnabled, edit_ids, origin, read, seen):
                    return tuple(self._records.view(edit_id) for edit_id in dict.fromkeys(edit_ids))
            spaces = set(seen)  # others have committed there meanwhile: this time they wait

    async def _flag(
        self,
        kind: type[Event],
        edit_ids: Sequence[str],
        origin: Origin,
        read: int | None,
        seen: Mapping[str, int] = MappingProxyType({}),
    ) -> bool:
        """Append the event; False if a namespace has changed since the revision at which it was `seen`."""
        ids, same = tuple(dict.fromkeys(edit_ids)), True
        if not ids:
            raise InvalidRequest("No edit was named: give at least one id.")

        def flagged() -> Event | None:
            nonlocal same
            if self._records.done_under(origin) is not None:
                return None
            self._records.ledger.check(kind, ids)
            check_read(self._records.ledger, list(ids), read)
            same = all(self._pins.live_edition(space).revision == revision for space, revision in seen.items())
            event: Any = kind  # each kind takes the ids
            flag: Event = event(revision=self._records.revision + 1, at_s=self._clock(), origin=origin, edit_ids=ids)
            return flag if same else None

        await self._records.write(flagged)
        return same

    async def _in_the_way(self, edit_ids: Sequence[str]) -> dict[str, int]:
        """Check that no other edit answers the prompts of these; returns the revision checked for each namespace.
        Raises ScopeConflict."""
        ledger, seen = self._records.ledger, dict[str, int]()
        leaving = ledger.with_superseded(edit_ids)  # they answer now, and will not once these come back
        for edit_id in edit_ids:
            entry = ledger.entry(edit_id)
            request, now = entry.request, self._pins.live_edition(entry.request.namespace)
            seen.setdefault(request.namespace, now.revision)
            if any(ledger.entries[newer].covers for newer in entry.superseded_by):
                continue  # it stays superseded
            prompts = (request.prompt, *request.paraphrases)
            answers = await self._trial_answers.first_tokens(prompts, now)
            if conflicts := in_the_way(ledger, replace(request, force=False), leaving, answers):
                what = f"The edit {edit_id} cannot be enabled, for edits with another target answer its prompts now"
                raise conflict_with(ledger, conflicts, what, advice="Disable them or roll them back first.")
        return seen

    async def roll_back_to(
        self, revision: int, namespace: str | None, origin: Origin, read: int | None = None
    ) -> tuple[EditView, ...]:
        """Roll back in one event every edit of a namespace, or of all (None), that was committed after a revision and
        is not rolled back yet. Raises PreconditionFailed if there were changes since the revision that was `read`."""
        touched: tuple[str, ...] = ()

        def back() -> Event | None:
            nonlocal touched
            ledger = self._records.ledger
            done = self._records.done_under(origin)
            if done is not None:
                touched = done.edit_ids
                return None
            touched = since(ledger, revision, namespace, self._configured, read)
            if not touched:
                return None
            return EditsRolledBack(revision=ledger.revision + 1, at_s=self._clock(), origin=origin, edit_ids=touched)

        await self._records.write(back)
        return tuple(self._records.view(edit_id) for edit_id in touched)

    async def set_switch(self, namespace: str | None, on: bool, origin: Origin) -> int:
        """Set an edit switch; returns the event's revision. Raises UnknownNamespace, and StateConflict if it is set so
        already."""
        done: int | None = None

        def switched() -> Event | None:
            nonlocal done
            before = self._records.done_under(origin)
            if before is not None:
                done = before.revision
                return None
            check_switch(self._records.ledger, namespace, on, self._configured)
            done = self._records.revision + 1
            return SwitchSet(revision=done, at_s=self._clock(), origin=origin, namespace=namespace, on=on)

        await self._records.write(switched)
        assert done is not None
        return done

    async def set_probes(self, namespace: str, prompts: Sequence[str], origin: Origin) -> int:
        """Set the probes of a namespace; returns the event's revision. Raises InvalidRequest."""
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
        """Append one event for all edits whose time has run out; returns their ids, none if nothing was due."""
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
