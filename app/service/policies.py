"""Decides whether an edit needs a second person, by its maker's role and its namespace's policy. Imports no torch."""

from collections.abc import Sequence

from app.domain.edit import NAMESPACE, NAMESPACE_RULE
from app.domain.errors import Forbidden, InvalidRequest, StateConflict
from app.domain.events import Event, Origin, PolicySet
from app.domain.keys import RIGHTS, Right, Role
from app.service.records import Clock, Records


class Policies:
    def __init__(self, records: Records, clock: Clock) -> None:
        self._records, self._clock = records, clock

    def waits(self, namespaces: Sequence[str], role: str | None) -> bool:
        """True if an edit of these namespaces, made by a key of this role, waits for a second person."""
        alone = role is None or Right.EDIT in RIGHTS[Role(role)]
        return not alone or self._records.ledger.approval.needs_second_person(namespaces)

    def proposes(self, namespaces: Sequence[str], origin: Origin) -> bool:
        """True if an edit of these namespaces becomes a proposal. One proposed under the same idempotency key remains
        one, whatever the policy is now."""
        used = self._records.ledger.done_under(origin)
        proposed = used is not None and self._records.ledger.approval.made_at(used.revision) is not None
        return proposed or self.waits(namespaces, origin.role)

    def check_alone(self, namespaces: Sequence[str], what: str) -> None:
        """Check that one person may make this change alone. Raises Forbidden if the namespace needs a second person."""
        approval = self._records.ledger.approval
        if closed := [name for name in namespaces if approval.needs_second_person((name,))]:
            raise Forbidden(
                f"Edits of the namespace {closed[0]} need a second person, so {what}: propose an edit by POST "
                f"/edit, or have an admin lift the rule for as long as it takes (PUT /policy), which the log records."
            )

    def check_alone_on(self, edit_id: str) -> None:
        """Check that one person may change the scope of this edit alone. Raises Forbidden."""
        namespace = self._records.ledger.entry(edit_id).edit.request.namespace
        self.check_alone([namespace], "nobody may change an edit's scope alone")

    async def set(self, namespace: str, second_person: bool, origin: Origin) -> int:
        """Set whether edits of a namespace need a second person; returns the revision. Raises InvalidRequest, and
        StateConflict if no key exists."""
        if not NAMESPACE.fullmatch(namespace):
            raise InvalidRequest(f"`namespace` is not a name: use {NAMESPACE_RULE}.")
        done = 0

        def policy() -> Event | None:
            nonlocal done
            ledger, before = self._records.ledger, self._records.done_under(origin)
            if second_person and not ledger.keys:
                raise StateConflict(
                    "A second person is known by a second API key, and there is no key yet: make keys (`errata keys "
                    "create`), two of them for people who edit."
                )
            if before is not None or ledger.approval.policies.get(namespace, False) == second_person:
                done = self._records.revision if before is None else before.revision
                return None
            done = self._records.revision + 1
            return PolicySet(
                revision=done, at_s=self._clock(), origin=origin, namespace=namespace, second_person=second_person
            )

        await self._records.write(policy)
        return done
